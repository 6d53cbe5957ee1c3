"""What the documents tell a reader to type does what they say: every command of
their blocks is run, and says what is printed below it, numbers, places and times
apart. docs_commands.py says in which surroundings, and what is run elsewhere."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import unittest
from dataclasses import dataclass, field

from docs_commands import COMMANDS, Elsewhere, Run
from harness import Home, Options, peer, program, wait_until

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
WITH_PROMPT, SHELL = ("", "console"), ("sh", "bash", "shell")
DID_NOT = "and it did not do what it should"
PROGRAMS = ("service/zcbrokerd", "service/keeper/zcbroker-keeper", "client/launcher/zcb")


@dataclass
class Command:
    file: str
    line: int
    text: str
    says: list = field(default_factory=list)
    program: str = ""


def blocks(file):
    """The fenced blocks of a document: (first line's number, language, lines)."""
    with open(os.path.join(ROOT, file), encoding="utf-8") as text:
        lines = text.read().splitlines()
    begin = None
    for number, line in enumerate(lines):
        fence = re.fullmatch(r"( *)```(\w*)", line)
        if fence and begin is None:
            begin, indent, language = number + 1, len(fence.group(1)), fence.group(2)
        elif fence:
            yield begin + 1, language, [inner[indent:] for inner in lines[begin:number]]
            begin = None


def commands(file):
    """Those of blocks for a shell, those behind a prompt with what they say, and programs in Python, which go by their
    first line."""
    found = []
    for number, language, lines in blocks(file):
        if language == "python":
            found.append(Command(file, number, lines[0], program="\n".join(lines)))
        if language not in WITH_PROMPT + SHELL:
            continue
        last = None
        for at, line in enumerate(lines):
            prompt = line.startswith("$ ")
            if last is not None and last.text.endswith("\\"):
                last.text = last.text[:-1].rstrip() + " " + line.strip()
            elif prompt or language in SHELL:
                last = Command(file, number + at, line[2:] if prompt else line)
                found.append(last)
            elif last is not None:
                last.says.append(line)
    return found


# What differs from machine to machine and from run to run.
VARYING = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d)?", "TIME"),
    (r"(?<=/)[0-9a-f]{16}(?=[.\s]|$)", "HEX"),
    (r"rpb-v1-[0-9a-f]{16}", "rpb-v1-HEX"),
    (r"\b(\d+h)?(\d+m)?\d+(\.\d+)? ?(ms|s|h)\b", "DURATION"),
    (r"(?<![\w.-])\d+(?![\w.]*\.\d)", "N"),
    (r" +", " "),
]


def shape(line):
    for pattern, word in VARYING:
        line = re.sub(pattern, word, line)
    return line.rstrip()


class Scenes:
    """Surroundings, by the names that the table has for them."""

    @staticmethod
    def fresh(home):
        """zccache 1.11.22 on the PATH, something to compile, no broker."""

    @staticmethod
    def projects(home):
        """Projects of C and Rust in one folder."""
        home.write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.20)\nproject(hello C CXX)\nadd_executable(x x.c)\n")
        os.makedirs(os.path.join(home.src, "src"))
        home.write("Cargo.toml", '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n')
        home.write("src/lib.rs", "pub fn hello() {}\n")

    @staticmethod
    def projects_and_daemon(home):
        Scenes.projects(home)
        home.start_kept_broker()
        assert home.cli("route", "zccache", "1.11.22").returncode == 0

    @staticmethod
    def mute_broker(home):
        """Without a keeper it claims nothing, so that direct is direct."""
        home.start_broker()
        home.broker.send_signal(signal.SIGSTOP)
        home.before_exit = lambda: home.broker.send_signal(signal.SIGCONT)

    @staticmethod
    def in_flight(home):
        """A compile that does not end and a client that does nothing."""
        folder = os.path.join(home.dir, "slow")
        os.mkdir(folder)
        with open(os.path.join(folder, "gcc"), "w", encoding="utf-8") as out:
            out.write("#!/bin/sh\necho >>~/compiling\nexec sleep 60\n")
        os.chmod(os.path.join(folder, "gcc"), 0o700)
        home.start_kept_broker()
        idle = socket.socket(socket.AF_UNIX)
        idle.connect(home.cli_json("route", "zccache", "1.11.22")["negotiation"]["route"]["endpoint"])
        home.before_exit = idle.close
        subprocess.Popen([program("client/cli/zcbroker"), "compile", "--", f"{folder}/gcc", "-c", "x.c"], cwd=home.src,
                         env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("the compiler to run", lambda: os.path.exists(f"{home.dir}/compiling"))

    @staticmethod
    def killed_daemon(home):
        home.start_kept_broker()
        pid = home.cli_json("route", "zccache", "1.11.22")["negotiation"]["route"]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until("its end", lambda: home.counters().get("backends_ended") == 1)

    @staticmethod
    def policy(home):
        """The policy that docs/policy.md begins with."""
        for version in ("1.11.22", "1.15.8"):
            home.cli("service", "add", "zccache", "--binary", f"{home.dir}/opt/zccache-{version}/zccache-daemon")
        home.start_under_policy(next(lines for _, language, lines in blocks("docs/policy.md") if language == "textproto"))

    @staticmethod
    def two_files(home):
        """A policy that says a little, and a definition that does, too."""
        home.write_definition("demo", "1.0.0", program("client/backend_sdk/reference/zcb-reference-backend"), [])
        with open(f"{home.dir}/.config/zcbroker/services/demo.textproto", "a", encoding="utf-8") as out:
            out.write("idle_stop { seconds: 90 }\n")
        home.start_under_policy(["keep_newest: 2"])


class ReadersHome(Home):
    """As a reader has it: programs on the PATH, something to compile."""

    def __init__(self, scene):
        super().__init__()
        self.before_exit = lambda: None
        tools = os.path.join(self.dir, "tools")
        for folder in (tools, f"{self.dir}/bin", f"{self.dir}/opt", f"{self.dir}/.config/zcbroker/services"):
            os.makedirs(folder)
        for path in PROGRAMS:
            os.symlink(os.path.abspath(program(path)), os.path.join(tools, os.path.basename(path)))
        # Readers are not root and need not say so.
        with open(os.path.join(tools, "zcbroker"), "w", encoding="utf-8") as out:
            out.write('#!/bin/sh\ncase "$1" in up | exec | env) verb=$1; shift; set -- "$verb" --allow-root "$@" ;; esac\n'
                      f'exec {shlex.quote(os.path.abspath(program("client/cli/zcbroker")))} "$@"\n')
        os.chmod(os.path.join(tools, "zcbroker"), 0o700)
        for version in ("1.11.22", "1.15.8"):
            os.symlink(peer(f"zccache-{version}"), f"{self.dir}/opt/zccache-{version}")
        rust = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
        self.env["PATH"] = ":".join([tools, *(peer(name) for name in ("zccache-1.11.22", "grpcurl-1.8.9", "sccache-0.16.0",
                                                                      "soldr-0.9.41")),
                                     os.path.join(rust, "bin"), "/usr/bin", "/bin"])
        for name, folder in (("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")):
            self.env[name] = os.environ.get(name, os.path.expanduser(f"~/{folder}"))
        self.env.update(ROOT=ROOT, BIN=Options.bin, PYTHON=sys.executable)
        del self.env["ZCCACHE_CACHE_DIR"]
        self.write("x.c", "int main(void) { return 0; }\n")
        self.write("Makefile", "x.o: x.c\n\t$(CC) -c x.c -o x.o\n")
        try:
            getattr(Scenes, scene)(self)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *words):
        self.before_exit()
        self.cli("down", "--stop-backends")
        super().__exit__(*words)

    def start_under_policy(self, lines):
        policy = os.path.join(self.dir, "policy.textproto")
        with open(policy, "w", encoding="utf-8") as out:
            out.write("\n".join(lines))
        os.chmod(policy, 0o600)
        log = open(self.log, "ab")
        with log:
            self.broker = subprocess.Popen([program("service/zcbrokerd"), "--allow-root", "--policy-file", policy],
                                           env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)
        wait_until("the broker to answer", lambda: self.cli("status").returncode == 0)

    def as_printed(self, said):
        """With the places and the user that the documents have."""
        # One name is not within a home; a broker of another test may have it.
        said = re.sub(r"(WARN  broker's |)problems\s+/tmp/running-process-\d+/\S+: another broker answers there.*\n", "", said)
        for ours, theirs in ((self.runtime, "/run/user/1000"), (f"{self.dir}/policy.textproto", "/etc/zcbroker/policy.textproto"),
                             (f"{self.dir}/tools", "/usr/bin"), (peer("zccache-1.11.22"), "/usr/bin"), (self.dir, "/home/u"),
                             ("/tmp/running-process-0", "/run/user/1000/running-process"), (" --allow-root", "")):
            said = said.replace(ours, theirs)
        said = re.sub(re.escape(os.path.realpath(Options.bin)) + r"\S*/", "/usr/bin/", said)
        return said.splitlines()

    def type(self, command, run):
        """(exit status, lines)"""
        text = command.text
        for old, new in run.replace:
            assert old in text, f"{command.file}:{command.line}: there is no {old} in it"
            text = text.replace(old, new)
        if command.program:
            text = f"{sys.executable} - <<'EOF'\n{command.program}\nEOF"
        before = f"{{ {run.before}\n}} >/dev/null 2>&1\n" if run.before else ""
        if run.then:
            text += f"\nstatus=$?\n{{ {run.then}\n}} >/dev/null 2>&1 || echo '{DID_NOT}'\nexit $status"
        typed = subprocess.Popen([run.shell, "-c", before + text], cwd=self.src, env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.until:
            said = ""
            while run.until not in said:
                line = typed.stdout.readline()
                assert line, f"{command.file}:{command.line}: ended without {run.until}: {said}"
                said += line
            typed.send_signal(signal.SIGINT)
            typed.communicate(timeout=30)
            return run.status, self.as_printed(said)
        said, _ = typed.communicate(timeout=60)
        return typed.returncode, self.as_printed(said)


def in_order(part, whole):
    rest = iter(whole)
    return all(line in rest for line in part)


class Documents(unittest.TestCase):
    maxDiff = None

    def test_every_document_is_looked_through(self):
        listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        wanted = {name for name in listed.stdout.split() if commands(name)}
        self.assertEqual(wanted - set(COMMANDS), set())

    def test_the_table_and_the_documents_have_the_same_commands(self):
        for file, table in COMMANDS.items():
            found = [command.text for command in commands(file)]
            if isinstance(table, Elsewhere):
                self.assertTrue(found, f"{file} has no commands any more")
                continue
            self.assertEqual(set(found) - set(table), set(), f"{file}: neither run nor listed in docs_commands.py")
            self.assertEqual(set(table) - set(found), set(), f"{file}: in docs_commands.py, and not in the document any more")

    def test_what_is_run_elsewhere_is_run_there(self):
        entries = [entry for table in COMMANDS.values() for entry in (table.values() if isinstance(table, dict) else [table])]
        for entry in {(e.file, e.words) for e in entries if isinstance(e, Elsewhere)}:
            with open(os.path.join(ROOT, entry[0]), encoding="utf-8") as text:
                self.assertIn(entry[1], text.read(), entry[0])

    def follow(self, file):
        home = None
        try:
            for command in commands(file):
                run = COMMANDS[file].get(command.text)
                if not isinstance(run, Run):
                    continue
                if home is None or run.scene:
                    if home is not None:
                        left, home = home, None
                        left.__exit__()
                    home = ReadersHome(run.scene or "fresh")
                began = time.monotonic()
                status, said = home.type(command, run)
                print(f"{file}:{command.line}: {command.text[:70]}  {time.monotonic() - began:.1f} s", flush=True)
                with self.subTest(command=f"{file}:{command.line}: {command.text}"):
                    self.assertEqual(status, run.status, "\n".join(said))
                    self.assertNotIn(DID_NOT, said)
                    self.compare([shape(line) for line in command.says], [shape(line) for line in said], run)
        finally:
            if home is not None:
                home.__exit__()

    def compare(self, wanted, said, run):
        if run.part:
            self.assertTrue(in_order(wanted, said), "\n".join(["printed", *wanted, "and it says", *said]))
        elif wanted:
            self.assertEqual(wanted, said)


def add_tests():
    for file, table in COMMANDS.items():
        if isinstance(table, dict) and any(isinstance(run, Run) for run in table.values()):
            name = re.sub(r"\W", "_", file.removesuffix(".md").lower())
            setattr(Documents, f"test_{name}", lambda self, file=file: self.follow(file))


add_tests()

if __name__ == "__main__":
    unittest.main()
