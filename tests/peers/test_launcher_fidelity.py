"""Through the launcher everything is as with the compiler alone: the same bytes
on each stream, the same files, the same status; cold, warm, and whatever else
was in the cache before. Each row also says who compiles: the daemon, or the
compiler that the launcher becomes.

How it is known who compiled: compilers are found through a directory of small
scripts that note who called them before they become the real program.
"""

import os
import resource
import shutil
import signal
import stat
import subprocess
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import reap_orphans, wait_until
from launcher_home import LauncherHome

SHIM = """#!/bin/sh
echo "$PPID" >> "$CALLS"
exec /usr/bin/NAME "$@"
"""

# It dies as a compiler does that runs out of memory.
DYING = """#!/bin/sh
echo "$PPID" >> "$CALLS"
case "$*" in *-v*) exec /usr/bin/gcc "$@";; esac
echo "about to die" >&2
kill -KILL $$
"""

FILES = {
    "a.c": '#include "a.h"\n#include <stdio.h>\nint f(int x) { return x + A; }\n'
           '#ifdef M\nint main(void) { puts("hi"); return f(0); }\n#endif\n',
    "a.h": "#define A 1\n",
    "b.cpp": "#include <vector>\nint g() { std::vector<int> v{1, 2}; return v.size(); }\n",
    "n.c": "int n;\n",
    "where.c": "const char *where = __FILE__;\n",
    "warn.c": "int w(void) { int unused; return 0; }\n",
    "bad.c": "int e( {\n",
    "missing.c": "#include <nowhere.h>\n",
    "s.s": ".globl s\ns: ret\n",
    "S.S": '#include "a.h"\n.globl s\ns: ret\n',
    "p.h": "int p;\n",
    "i/x.h": "#define X 1\n",
    "j/x.h": "#define X 2\n",
    "x.c": "#include <x.h>\nint x = X;\n",
    "blob": "bytes\n",
    "incbin.c": '__asm__(".incbin \\"blob\\"");\nint i;\n',
    "stamp.c": "const char *stamp = __TIMESTAMP__;\n",
    "date.c": "const char *date = __DATE__;\n",
    "perhaps.c": '#if __has_include("none.h")\nint has;\n#endif\nint p;\n',
    "plain.rsp": "-O1 -DZ=1 a.c -o a.o",
    "quoted.rsp": '-O1 "-DZ=1 + 1" a.c -o a.o',
    "nested.rsp": "-g @plain.rsp",
    "sub/deep.c": '#include "../a.h"\nint deep = A;\n',
    "uni\u00e9.c": "int u;\n",
    "lib.rs": "pub fn f() -> i32 { 1 }\n",
    "warn.rs": "fn unused() {}\npub fn f() -> i32 { 1 }\n",
    "bad.rs": "pub fn f( -> i32 { 1 }\n",
    "env.rs": 'pub fn f() -> &\'static str { env!("ROW_SAYS") }\n',
    "main.rs": 'fn main() { println!("x"); }\n',
}

DAEMON, COMPILER = "daemon", "compiler"
RUST = "rustc --edition=2021 --crate-type lib --emit=dep-info,metadata,link --out-dir . "

# (who compiles, the command, what is special)
ROWS = [
    # Plain compiles.
    (DAEMON, "gcc -c a.c -o a.o", {}),
    (DAEMON, "gcc -c a.c", {}),
    (DAEMON, "cc -c n.c", {}),
    (DAEMON, "gcc -O2 -Wall -c a.c -o a.o", {}),
    (DAEMON, "gcc -g -c a.c -o a.o", {}),
    (DAEMON, "gcc -g3 -Og -c a.c", {}),
    (DAEMON, "gcc -std=c99 -pedantic -pipe -c a.c", {}),
    (DAEMON, "gcc -march=native -O3 -ffast-math -c a.c", {}),
    (DAEMON, "gcc -fPIC -fvisibility=hidden -DX=1 -UX -c a.c", {}),
    (DAEMON, "gcc -include a.h -c n.c", {}),
    (DAEMON, "gcc -Ii -I j -c x.c", {}),
    (DAEMON, "gcc -Ij -I i -c x.c", {}),
    (DAEMON, "gcc -isystem i -c x.c", {}),
    (DAEMON, "gcc -Wp,-D_FORTIFY_SOURCE=2 -Wa,--noexecstack -O2 -c a.c", {}),
    (DAEMON, "gcc -x c++ -c a.c", {}),
    (DAEMON, "gcc -c a.c -oa.o", {}),
    (DAEMON, "gcc -c sub/deep.c", {}),
    (DAEMON, "gcc -c sub/deep.c -o sub/deep.o", {}),
    (DAEMON, "gcc -c uni\u00e9.c -o uni\u00e9.o", {}),
    (DAEMON, "gcc -c where.c", {}),
    (DAEMON, "gcc -c ./where.c -o ./where.o", {}),
    (DAEMON, "gcc -c {dir}/where.c -o {dir}/where.o", {}),
    (DAEMON, "gcc -c sub/../where.c", {}),
    (DAEMON, "gcc -fdebug-prefix-map={dir}=/x -g -c where.c", {}),
    (DAEMON, "g++ -c b.cpp -o b.o", {}),
    (DAEMON, "g++ -std=c++20 -O1 -c b.cpp", {}),
    (DAEMON, "clang-14 -c a.c -o a.o", {}),
    (DAEMON, "clang-14 -g -Weverything -c a.c", {}),
    (DAEMON, "gcc -c a.c -o here.o", {"before": {"here.o": "an older one"}}),
    # Dependency files.
    (DAEMON, "gcc -MD -c a.c -o a.o", {}),
    (DAEMON, "gcc -MMD -c a.c -o sub/a.o", {}),
    (DAEMON, "gcc -MD -MF a.dep -c a.c -o a.o", {}),
    # zccache 1.11.22 keeps nothing of a call with -MP.
    (DAEMON, "gcc -MMD -MP -MF a.dep -c a.c", {"no_hit": True}),
    (DAEMON, "gcc -MD -MT other.o -MF sub/a.dep -c a.c -o a.o", {}),
    (DAEMON, "gcc -MD -MQ $x.o -MF sub/a.dep -c {dir}/a.c -o a.o", {}),
    (COMPILER, "gcc -MD -MFsub/a.dep -c a.c", {}),
    (DAEMON, "gcc -MD -MF a.dep -c a.c -o a.o", {"before": {"a.dep": "old.o: old.c\n"}}),
    (DAEMON, "clang-14 -MD -MT a.o -MF a.dep -c a.c -o a.o", {}),
    (COMPILER, "gcc -Wp,-MD,a.pd -c a.c", {}),
    (COMPILER, "gcc -M a.c", {}),
    (COMPILER, "gcc -MM -MF a.dep a.c", {}),
    (COMPILER, "gcc -MD -MF /dev/stdout -c a.c", {}),
    # Response files.
    (DAEMON, "gcc -c @plain.rsp", {}),
    (DAEMON, "gcc -c @nested.rsp", {}),
    (COMPILER, "gcc -c @quoted.rsp", {}),
    (COMPILER, "gcc -c @none.rsp", {}),
    # Diagnostics.
    (DAEMON, "gcc -Wall -c warn.c", {}),
    (DAEMON, "gcc -fdiagnostics-color=always -Wall -c warn.c", {}),
    (DAEMON, "clang-14 -fcolor-diagnostics -Wall -c warn.c", {}),
    (DAEMON, "gcc -Wall -c warn.c", {"env": {"LC_ALL": "C.UTF-8"}}),
    (DAEMON, "gcc -Wall -Werror -c warn.c", {"fails": True}),
    (DAEMON, "gcc -c bad.c", {"fails": True}),
    (DAEMON, "gcc -c bad.c -o here.o", {"fails": True, "before": {"here.o": "an older one"}}),
    (DAEMON, "gcc -MD -MF a.dep -c bad.c", {"fails": True}),
    (DAEMON, "gcc -c missing.c", {"fails": True}),
    (DAEMON, "gcc -c a.c -fnot-an-option", {"fails": True}),
    (DAEMON, "clang-14 -c bad.c", {"fails": True}),
    (COMPILER, "gcc -fdiagnostics-format=json -Wall -c warn.c", {}),
    (COMPILER, "gcc -c none.c", {}),
    (COMPILER, "gcc -c a.c none.c", {}),
    (COMPILER, "gcc -c a.c -o", {}),
    (COMPILER, "gcc -c a.c -I", {}),
    (COMPILER, "gcc -c a.c -o none/a.o", {}),
    (COMPILER, "gcc", {}),
    # More than an object comes out, or something else.
    (COMPILER, "gcc a.c -DM -o prog", {}),
    (COMPILER, "gcc -shared -fPIC a.c -o liba.so", {}),
    (COMPILER, "gcc -E a.c", {}),
    (COMPILER, "gcc -E a.c -o a.i", {}),
    (COMPILER, "gcc -S a.c", {}),
    (COMPILER, "gcc -fsyntax-only -Wall warn.c", {}),
    (COMPILER, "gcc -c a.c n.c", {}),
    (COMPILER, "gcc -c s.s", {}),
    (COMPILER, "gcc -c S.S", {}),
    (COMPILER, "gcc -x c-header p.h -o p.h.gch", {"only": ["p.h.gch"]}),
    (COMPILER, "gcc --write-dependencies -c a.c", {}),
    (COMPILER, "gcc --write-user-dependencies -c a.c", {}),
    (COMPILER, "gcc --save-temps -c a.c", {}),
    (COMPILER, "gcc -c --output=out.o a.c", {}),
    (DAEMON, "gcc --std=c99 --param max-inline-insns-auto=9 -c a.c", {}),
    # What no dependency file names, or what no cache can know.
    (COMPILER, "gcc -c incbin.c", {}),
    (COMPILER, "gcc -c stamp.c", {"names": True}),
    (COMPILER, "gcc -c date.c", {}),
    (COMPILER, "gcc -c perhaps.c", {}),
    (COMPILER, "gcc -save-temps -c a.c", {}),
    (COMPILER, "gcc --coverage -c a.c", {"names": True}),
    (COMPILER, "gcc -g -gsplit-dwarf -c a.c", {}),
    (COMPILER, "gcc -fstack-usage -c a.c", {}),
    (COMPILER, "gcc -fdump-tree-original -c a.c", {}),
    (COMPILER, "gcc -Wa,-ahl=a.lst -c n.c", {"names": True}),
    (COMPILER, "gcc -aux-info a.X -c a.c", {}),
    (COMPILER, "gcc -H -c a.c", {}),
    (COMPILER, "gcc -frecord-gcc-switches -c a.c", {}),
    (COMPILER, "gcc -Wmissing-include-dirs -Inone -c a.c", {}),
    (COMPILER, "clang-14 --serialize-diagnostics a.dia -c warn.c", {}),
    (COMPILER, "clang-14 -emit-llvm -c a.c", {}),
    (COMPILER, "clang-14 -MJ a.json -c a.c", {}),
    (COMPILER, "gcc --version", {}),
    (COMPILER, "gcc -v", {}),
    (COMPILER, "gcc -dumpmachine", {}),
    (COMPILER, "ar rcs liba.a a.c n.c", {}),
    (COMPILER, "ar rcsD liba.a n.c", {"before": {"liba.a": "!<arch>\n"}}),
    (COMPILER, "ar t none.a", {}),
    (COMPILER, "ld --version", {}),
    (COMPILER, "as s.s -o s.o", {}),
    # Standard input, and what is no plain file.
    (COMPILER, "gcc -x c -c - -o stdin.o", {"stdin": b"int from_stdin;\n"}),
    (COMPILER, "gcc -x c -c /dev/stdin -o stdin.o", {"stdin": b"int from_stdin;\n"}),
    (COMPILER, "gcc -E -x c -", {"stdin": b"#define A 1\nA\n"}),
    # A link: zccache puts a plain file in the place of a device (seen, with /dev/null).
    (COMPILER, "gcc -c a.c -o null.o", {"link": {"null.o": "/dev/null"}}),
    (COMPILER, "gcc -c a.c -o link.o", {"link": {"link.o": "nowhere.o"}}),
    # What surrounds a compiler.
    (DAEMON, "gcc -c x.c", {"env": {"CPATH": "i"}}),
    (DAEMON, "gcc -c x.c", {"env": {"CPATH": "j"}}),
    (DAEMON, "gcc -c x.c", {"env": {"C_INCLUDE_PATH": "j"}}),
    (DAEMON, "gcc -c a.c", {"env": {"SOURCE_DATE_EPOCH": "0"}}),
    (DAEMON, "gcc -c a.c", {"env": {"HUGE": "x" * 100_000}}),
    (DAEMON, "gcc -c a.c -DLONG=" + "1" * 100_000, {}),
    (DAEMON, "gcc -c a.c " + " ".join(f"-DM{i}={i}" for i in range(5000)), {}),
    (DAEMON, "gcc -g -c where.c", {"pwd": "{dir}-alias"}),
    (COMPILER, "gcc -c a.c", {"env": {"DEPENDENCIES_OUTPUT": "deps"}}),
    (COMPILER, "gcc -c a.c", {"env": {"COMPILER_PATH": "/nowhere"}}),
    (COMPILER, "gcc -c a.c", {"umask": 0o077}),
    (COMPILER, "gcc -c a.c", {"limit": (resource.RLIMIT_FSIZE, 1 << 30)}),
    (COMPILER, "gcc -c a.c -DB=\udcff", {}),
    (COMPILER, "gcc -c a.c", {"env": {"ODD": "\udcff"}}),
    (COMPILER, "gcc -c a.c", {"closed": 0}),
    (COMPILER, "gcc -c a.c", {"closed": 1}),
    (COMPILER, "gcc -Wall -c warn.c", {"closed": 2}),
    (COMPILER, "gcc-dying -c a.c", {}),
    (COMPILER, "gcc-99 -c a.c", {"calls": None}),
    (COMPILER, "gcc -c a.c", {"env": {"ZCCACHE_DISABLE": "1"}}),
    (COMPILER, "gcc -c a.c", {"env": {"RUNNING_PROCESS_DISABLE": "1"}}),
    # Rust.
    (DAEMON, RUST + "--crate-name r lib.rs", {}),
    (DAEMON, RUST + "--crate-name r -C opt-level=3 -C metadata=1 lib.rs", {}),
    (DAEMON, RUST + "--crate-name r warn.rs", {}),
    (DAEMON, RUST + "--crate-name r --error-format=json warn.rs", {}),
    (DAEMON, RUST + "--crate-name r env.rs", {"env": {"ROW_SAYS": "the first"}}),
    (DAEMON, RUST + "--crate-name r env.rs", {"env": {"ROW_SAYS": "the second"}}),
    (DAEMON, RUST + "--crate-name r bad.rs", {"fails": True}),
    (COMPILER, "rustc main.rs -o prog", {}),
    (COMPILER, "rustc -vV", {}),
    (COMPILER, "rustc - --crate-name ___ --print=file-names", {"stdin": b""}),
]

# What went before in the same cache: a key that leaves something out brings
# back one of these.
BEFORE = ["gcc -c a.c -o a.o", "gcc -c where.c", "gcc -c x.c -Ii", "g++ -c b.cpp -o b.o", "clang-14 -c a.c -o a.o",
          "gcc -MD -MF q.dep -c a.c -o q.o"]


class Outcome:
    """What one can see of a call: status, streams, files."""

    def __init__(self, done, folder, special):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.files = {}
        for root, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(root, name)
                leaf = os.path.relpath(path, folder)
                if leaf in FILES or special.get("only") is not None and leaf not in special["only"]:
                    continue
                info = os.lstat(path)
                content = b""
                # Some files differ each time even without a launcher.
                if stat.S_ISREG(info.st_mode) and not special.get("names") and "only" not in special:
                    with open(path, "rb") as data:
                        content = data.read()
                self.files[leaf] = (oct(info.st_mode), content)

    def differences(self, other):
        found = []
        for name in ("status", "out", "err"):
            if getattr(self, name) != getattr(other, name):
                found.append(f"{name}: {getattr(self, name)!r:.300} became {getattr(other, name)!r:.300}")
        for leaf in sorted(set(self.files) | set(other.files)):
            ours, theirs = self.files.get(leaf), other.files.get(leaf)
            if ours != theirs:
                found.append(f"{leaf}: {str(ours)[:120]} became {str(theirs)[:120]}")
        return found


class Fidelity(unittest.TestCase):
    """The table, on a daemon that was started by hand."""

    version = "1.11.22"
    lane = "frame-v1"
    rows = ROWS

    def setUp(self):
        self.home = LauncherHome(self.version, lanes=(self.lane,))
        self.addCleanup(self.home.__exit__)
        self.shims = os.path.join(self.home.dir, "shims")
        os.mkdir(self.shims)
        for name in ("gcc", "g++", "cc", "clang-14", "ar", "ld", "as", "rustc"):
            real = shutil.which(name, path=self.home.env["PATH"])
            if real is not None:
                self.shim(name, SHIM.replace("/usr/bin/NAME", real))
        self.shim("gcc-99", DYING)
        self.home.env["PATH"] = f"{self.shims}:{self.home.env['PATH']}"
        self.home.start_daemon()

    def shim(self, name, text):
        path = os.path.join(self.shims, name)
        with open(path, "w", encoding="utf-8") as script:
            script.write(text)
        os.chmod(path, 0o755)

    def fill(self, folder, special):
        shutil.rmtree(folder, ignore_errors=True)
        for leaf, text in FILES.items():
            path = os.path.join(folder, leaf)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
        for leaf, text in special.get("before", {}).items():
            with open(os.path.join(folder, leaf), "w", encoding="utf-8") as out:
                out.write(text)
        for leaf, target in special.get("link", {}).items():
            os.symlink(target, os.path.join(folder, leaf))

    def run_once(self, folder, words, special, launcher, calls):
        self.fill(folder, special)
        if os.path.exists(calls):
            os.remove(calls)
        pwd = special.get("pwd", folder).replace("{dir}", folder)
        limit, closed = special.get("limit"), special.get("closed")

        def begin():
            if limit is not None:
                resource.setrlimit(limit[0], (limit[1], limit[1]))
            if closed is not None:
                os.close(closed)

        done = subprocess.run(
            [*launcher, *words], cwd=folder, input=special.get("stdin", b""), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, umask=special.get("umask", 0o022), timeout=60, check=False,
            env={**self.home.env, "PWD": pwd, "CALLS": calls, **special.get("env", {})},
            preexec_fn=begin if limit is not None or closed is not None else None)
        callers = []
        if os.path.exists(calls):
            with open(calls, encoding="utf-8") as log:
                callers = [int(line) for line in log]
        return Outcome(done, folder, special), callers

    def row(self, number):
        """Differences and wrong turns of a row: [text]."""
        who, command, special = self.rows[number]
        who = special.get("who", who)
        folder = os.path.join(self.home.dir, f"row{number}")
        calls = os.path.join(self.home.dir, f"calls{number}")
        words = [word.replace("{dir}", folder) for word in command.split()]
        if shutil.which(words[0], path=self.home.env["PATH"]) is None and words[0] != "gcc-dying":
            return []
        os.symlink(folder, f"{folder}-alias")
        launcher = [self.home.zcb]
        if words[0] == "gcc-dying":
            # No such program: the shell says 127, and so do we.
            done = subprocess.run([*launcher, *words], env=self.home.env, capture_output=True, check=False)
            return [] if done.returncode == 127 else [f"status {done.returncode} for a missing compiler"]
        plain, _ = self.run_once(folder, words, special, [], calls)
        for before in BEFORE:
            self.run_once(folder, before.split(), {}, launcher, calls)
        found = []
        hits = 0
        for turn in ("cold", "warm", "warm again"):
            through, callers = self.run_once(folder, words, special, launcher, calls)
            found += [f"{turn}: {text}" for text in plain.differences(through)]
            # The daemon's own calls come from it; ours from here.
            direct = [pid for pid in callers if pid == os.getpid()]
            if who == COMPILER and special.get("calls", 1) is not None and len(direct) != 1:
                found.append(f"{turn}: the compiler was run {len(direct)} times from here")
            if who == DAEMON and len(direct) != (1 if special.get("fails") else 0):
                found.append(f"{turn}: the compiler was run {len(direct)} times from here, not by the daemon")
            hits += turn != "cold" and not callers
        # zccache replies a moment before what it has compiled can be hit: of 200 compiles by rustc that were repeated
        # at once, 10 were compiled again, and 1 when they were repeated after 20 ms.
        if who == DAEMON and hits == 0 and not special.get("fails") and not special.get("no_hit"):
            found.append("no hit")
        return found

    def test_table(self):
        with ThreadPoolExecutor(3) as pool:
            results = list(pool.map(self.row, range(len(self.rows))))
        reap_orphans({self.home.daemon.pid})
        for (_, command, special), found in zip(self.rows, results):
            with self.subTest(command=command[:100], special=str(special)[:100]):
                self.assertEqual(found, [])

    def test_a_signal_is_a_signal(self):
        """A compiler that dies by a signal: whoever waits sees that signal."""
        calls = os.path.join(self.home.dir, "calls")
        self.home.write("a.c", "int a;\n")
        done = subprocess.run([self.home.zcb, "gcc-99", "-c", "a.c"], cwd=self.home.src, capture_output=True,
                              env={**self.home.env, "CALLS": calls}, check=False)
        self.assertEqual(done.returncode, -signal.SIGKILL)
        self.assertEqual(done.stderr, b"about to die\n")


class Staleness(unittest.TestCase):
    """Something changes behind a daemon's back: the next object is that of the
    compiler alone. Each is compiled twice before, so that a cache has it."""

    def setUp(self):
        self.home = LauncherHome()
        self.addCleanup(self.home.__exit__)
        self.bin = os.path.join(self.home.dir, "bin")
        os.mkdir(self.bin)
        self.home.env["PATH"] = f"{self.bin}:{self.home.env['PATH']}"
        self.home.start_daemon()

    def compiler(self, name, level):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="utf-8") as script:
            script.write(f'#!/bin/sh\nexec /usr/bin/gcc -DLEVEL={level} "$@"\n')
        os.chmod(path, 0o755)
        return path

    def write(self, leaf, text):
        path = os.path.join(self.home.src, leaf)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)

    def youngest(self):
        return time.time() - max(os.stat(os.path.join(root, name)).st_ctime
                                 for root, _, names in os.walk(self.home.src) for name in names)

    def compile(self, command, launcher=True):
        for _ in range(3):
            done = subprocess.run([*([self.home.zcb] if launcher else []), *command.split()], cwd=self.home.src,
                                  env=self.home.env, capture_output=True, check=True, timeout=60)
            self.assertEqual((done.stdout, done.stderr), (b"", b""))
        with open(os.path.join(self.home.src, "a.o"), "rb") as data:
            return data.read()

    def check(self, command, change):
        # What was written a moment ago is watched more closely.
        wait_until("the files to be old", lambda: self.youngest() > 3, 10)
        before = self.compile(command)
        change()
        after = self.compile(command)
        self.assertTrue(before != after, "the old object")
        self.assertTrue(after == self.compile(command, launcher=False), "not the compiler's object")
        self.assertEqual(self.home.fallbacks(), [])

    def test_compiler_replaced(self):
        self.write("a.c", "int level = LEVEL;\n")
        self.compiler("gcc", 1)
        self.check("gcc -c a.c", lambda: os.rename(self.compiler("gcc-new", 2), os.path.join(self.bin, "gcc")))

    def test_compiler_edited_in_place(self):
        self.write("a.c", "int level = LEVEL;\n")
        self.compiler("gcc", 1)
        self.check("gcc -c a.c", lambda: self.compiler("gcc", 2))

    def test_compiler_link_retargeted(self):
        self.write("a.c", "int level = LEVEL;\n")
        self.compiler("gcc-1", 1)
        self.compiler("gcc-2", 2)
        link = os.path.join(self.bin, "gcc")
        os.symlink("gcc-1", link)

        def change():
            os.unlink(link)
            os.symlink("gcc-2", link)

        self.check("gcc -c a.c", change)

    def retarget(self, command, first, second, link):
        """`link` in the sources leads to the first, then to the second."""
        self.write("a.c", '#include "x.h"\nint x = X;\n')
        path = os.path.join(self.home.src, link)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(first, path)

        def change():
            os.unlink(path)
            os.symlink(second, path)

        self.check(command, change)

    def test_header_link_retargeted(self):
        self.write("x1.h", "#define X 1\n")
        self.write("x2.h", "#define X 2\n")
        self.retarget("gcc -MMD -c a.c", "x1.h", "x2.h", "x.h")

    def test_include_directory_link_retargeted(self):
        self.write("one/x.h", "#define X 1\n")
        self.write("two/x.h", "#define X 2\n")
        self.retarget("gcc -MMD -Iinc -c a.c", "one", "two", "inc")

    def test_include_directories_swapped(self):
        self.write("a.c", '#include "x.h"\nint x = X;\n')
        self.write("inc/x.h", "#define X 1\n")
        self.write("other/x.h", "#define X 2\n")

        def change():
            for old, new in (("inc", "third"), ("other", "inc"), ("third", "other")):
                os.rename(os.path.join(self.home.src, old), os.path.join(self.home.src, new))

        self.check("gcc -MMD -Iinc -c a.c", change)


class FidelityProst(Fidelity):
    """The lanes differ in bytes, not in what they mean: some rows will do."""

    lane = "prost-v16"
    rows = ROWS[:12]


class FidelityBincode(Fidelity):
    lane = "bincode-v15"
    rows = ROWS[:12]


class Newest(unittest.TestCase):
    """1.15.8 compiles over FrameV1, but changes paths in what it makes: it is
    left alone, and that is said once."""

    def test_it_is_left_alone_and_said_once(self):
        with LauncherHome("1.15.8") as home:
            home.start_daemon()
            home.write("a.c", "int a;\n")
            errors = b""
            for _ in range(3):
                done = subprocess.run([home.zcb, "gcc", "-g", "-c", "a.c"], cwd=home.src, env=home.env,
                                      capture_output=True, check=True)
                errors += done.stderr
            self.assertEqual(errors.count(b"1.15.8"), 1, errors)
            self.assertEqual(home.fallbacks(), [11, 11, 11])  # FallbackReason::kLaneUnsupported


if __name__ == "__main__":
    unittest.main()
