"""Which command of the documents is run by what. test_docs.py runs the scenes, in
the order of their document; what is run elsewhere names the file that does, and
words of it. A command that is in no table fails the test, and so does an entry
without a command."""

from dataclasses import dataclass


@dataclass
class Run:
    """In the home of the document before, or in a new one that `scene` prepares."""

    scene: str = ""
    # Written over in the command: the reader's places are not ours.
    replace: tuple = ()
    # In the same shell before it; what it says counts for nothing.
    before: str = ""
    status: int = 0
    # The document shows a part of the lines, in order.
    part: bool = False
    # Typed after it, and true if it did what the document says.
    then: str = ""
    # It goes on for ever: ended when it has said this.
    until: str = ""
    shell: str = "bash"


@dataclass
class Elsewhere:
    file: str
    words: str


THE_TEST = Elsewhere("dev", "test_all() {")
STUBS = Elsewhere("tests/conformance/run.py", "self.install_lines()")
LIBRARY = Elsewhere("tests/packages/guest.sh", "examples/where")
OPT = (("/opt/", "$HOME/opt/"),)
RELAYED = """
    now=$(zcbroker status | sed -n 's/^  relay.requests //p')
    [ "$now" -gt "$(cat ~/relayed 2>/dev/null || echo 0)" ] && echo "$now" >~/relayed"""
SCCACHE = 'export SCCACHE_SERVER_UDS="$XDG_RUNTIME_DIR/zcbroker/routes/sccache/0.16.0.sock"'

# Every document whose blocks are looked through has its commands here.
COMMANDS = {
    "README.md": {
        "./dev demo          # installs what is missing, builds, shows the main job, cleans up":
            Run(replace=(("./dev demo", '"$ROOT/tests/demo.sh" "$BIN"'),)),
        "./dev test          # everything, as CI does; see below": THE_TEST,
        "./dev test-quick    # unit and end-to-end tests": Elsewhere("dev", 'bazel_tests "unit and end-to-end tests"'),
        "zcbroker service add zccache --binary /opt/zccache-1.11.22/zccache-daemon": Run("fresh", OPT),
        "zcbroker service add zccache --binary /opt/zccache-1.15.8/zccache-daemon": Run(replace=OPT),
        "zcbroker up": Run(),
        "zccache gcc -c x.c -o x.o": Run(),
        'make -j16 CC="zccache gcc"': Run(before="rm x.o"),
        'zcbroker exec --wanted 1.15.8 -- make -j16 CC="zccache gcc"': Run(before='rm x.o; PATH="$HOME/opt/zccache-1.15.8:$PATH"'),
        'eval "$(zcbroker env --wanted 1.15.8)"': Run(),
        "zcbroker status      # backends, routes, counters": Run(),
        "zcbroker events -f   # starts, ends, refusals, as they happen": Run(until="broker started"),
        "zcbroker doctor      # what is wrong, and what to do about it": Run(),
        "zcbroker report broker.html   # all of it with pictures, to show others": Run(),
        "grpcurl -plaintext -unix -authority localhost "
        "-d '{\"service\": \"zccache\", \"wanted_version\": \"1.11.22\"}' "
        '"$XDG_RUNTIME_DIR/zcbroker/broker.sock" zcbroker.v1.Broker/Negotiate': Run(),
        "import os, grpc": Run(before="""
            mkdir ~/out; cd "$ROOT"
            "$PYTHON" -m grpc_tools.protoc -I. --python_out="$HOME/out" --grpc_python_out="$HOME/out" \
              proto/zcbroker/v1/errors.proto proto/zcbroker/v1/broker.proto
            export PYTHONPATH="$HOME/out" """),
    },
    "CONTRIBUTING.md": {
        "./dev demo         # see it work": Elsewhere("tests/peers/docs_commands.py", "tests/demo.sh"),
        "./dev test-quick   # unit and end-to-end tests, the inner loop": Elsewhere("dev", 'bazel_tests "unit and end-to-end tests"'),
        "./dev test         # everything; what CI runs": THE_TEST,
        "bazel test //service/core:machine_test": Elsewhere("dev", 'bazel_tests "unit and end-to-end tests"'),
        "~/.cache/zcbroker/venv/bin/python tests/peers/run.py --bin bazel-bin --peers ~/.cache/zcbroker/peers test_versions":
            Elsewhere("dev", "tests/peers/run.py"),
    },
    "docs/cli.md": {
        "zcbroker route zccache 1.11.22": Run("fresh", before="zcbroker up"),
        "zcbroker route zccache 9.9.9": Run(status=5),
        "zcbroker ping zccache 1.11.22 -n 3": Run(),
        "zcbroker compile -- gcc -c x.c -o x.o": Run(),
        "zcbroker exec -- make -j16": Run(),
        'eval "$(zcbroker env)"                      # sh, bash, zsh': Run(),
        "zcbroker env --shell fish | source          # fish": Run(shell="fish"),
        "zcbroker env": Run(),
        "zcbroker doctor --wanted 1.15.8": Run(status=1),
        "ZCCACHE_BROKER_CONNECT=1 zcbroker explain --wanted 1.11.22":
            Run("mute_broker", before="zcbroker compile --wanted 1.11.22 -- gcc -c x.c"),
        "zcbroker status": Run("fresh", before="zcbroker up; ZCCACHE_BROKER_CONNECT=1 zccache gcc -c x.c -o x.o"),
        "zcbroker report broker.html --for 3s": Run(),
        "zcbroker drain zccache 1.11.22": Run("in_flight"),
        "zcbroker service add demo --binary ./zcb-reference-backend --version 1.0.0 "
        "--arg --endpoint --arg '{endpoint}' --probe zccache-ping --lane frame-v1":
            Run("fresh", before='zcbroker up; cp "$BIN/client/backend_sdk/reference/zcb-reference-backend" .'),
        "zcbroker service list": Run(),
        "zcbroker service check": Run(),
        "zcbroker config --effective": Run("two_files", part=True),
        "zcbroker route zccache 9.9.9 --json": Run("fresh", before="zcbroker up", status=5),
    },
    "docs/definitions.md": {
        'zcbroker service add zccache --binary "$(command -v zccache-daemon)"': Run("fresh"),
        "zcbroker service check": Run(before="""echo 'name: "typo" binaries {} binarys {}' """
                                             ">~/.config/zcbroker/services/typo.textproto", status=1),
    },
    "docs/operations.md": {
        "systemctl --user enable --now zcbroker.service": Elsewhere("tests/packages/guest.sh", "systemctl --user enable --now zcbroker.service"),
        "zcbroker events": Run("killed_daemon", part=True),
        "journalctl --user -t zcbrokerd ZCBROKER_EVENT=BACKEND_START_FAILED -o verbose":
            Elsewhere("tests/packages/guest.sh", "entries ZCBROKER_EVENT=BACKEND_READY"),
    },
    "docs/backend-kit.md": {
        "bazel build //client/backend_sdk/example:echo_backend": Elsewhere("dev", 'bazel_tests "unit and end-to-end tests"'),
        "zcbroker service add echo --binary bazel-bin/client/backend_sdk/example/echo_backend "
        "--version 1.0.0 --arg '{endpoint}' --probe identity":
            Run("fresh", (("bazel-bin/", "$BIN/"),), before="zcbroker up"),
        "zcbroker route echo 1.0.0     # starts it, and says where it listens": Run(),
        "zcbroker drain echo 1.0.0     # ends it when nothing is in flight": Run(),
    },
    "docs/cpp.md": {
        "apt-get install ./dist/libzcbroker-dev_0.1.0-1_amd64.deb": LIBRARY,
        "cp -r /usr/share/doc/libzcbroker-dev/examples/where . && cd where": LIBRARY,
        "cmake -B build && cmake --build build": LIBRARY,
        "# or: c++ -std=c++17 main.cc $(pkg-config --cflags --libs zcbroker-client) -o where": LIBRARY,
        'ZCCACHE_BROKER_CONNECT=1 build/where zccache 1.11.22 "$XDG_RUNTIME_DIR/zccache/sock"': LIBRARY,
    },
    "docs/policy.md": {
        "zcbroker config --effective": Run("policy"),
    },
    "docs/using-it.md": {
        "zcbroker up": Run("projects"),
        "zccache gcc -c x.c -o x.o": Run(then=RELAYED),
        'make CC="zccache gcc"': Run(before="rm x.o", then=RELAYED),
        "cmake -B build -DCMAKE_C_COMPILER_LAUNCHER=zccache -DCMAKE_CXX_COMPILER_LAUNCHER=zccache": Run(),
        "cmake --build build": Run(then=RELAYED),
        "RUSTC_WRAPPER=zccache cargo build": Run(then=RELAYED),
        "zcbroker explain": Run(),
        'zcbroker exec --wanted 1.11.22 -- make CC="zccache gcc"': Run(before="rm x.o", then=RELAYED),
        'eval "$(zcbroker env --wanted 1.11.22)"':
            Run(then='zcbroker explain | grep "by ZCCACHE_ENDPOINT, the broker\'s own name"'),
        "ZCCACHE_BROKER_CONNECT=1 zccache gcc -c x.c -o x.o": Run(then=f"! {{ {RELAYED}\n}}"),
        "ZCCACHE_BROKER_CONNECT=1 zcbroker explain": Run(),
        'make CC="zcb gcc"': Run(before="rm x.o", then=f"! {{ {RELAYED}\n}}"),
        "cmake -B build-zcb -DCMAKE_C_COMPILER_LAUNCHER=zcb -DCMAKE_CXX_COMPILER_LAUNCHER=zcb":
            Run(then="cmake --build build-zcb"),
        "CARGO_INCREMENTAL=0 RUSTC_WRAPPER=zcb cargo build": Run(before="rm -r target", then="zcbroker explain --all | grep 'no fallbacks'"),
        'zcbroker service add sccache --binary "$(command -v sccache)" --env SCCACHE_START_SERVER=1 '
        "--env SCCACHE_NO_DAEMON=1 --env SCCACHE_IDLE_TIMEOUT=0 --env 'SCCACHE_SERVER_UDS={endpoint}' "
        '--env "SCCACHE_DIR=$HOME/.cache/sccache"': Run(),
        SCCACHE: Run(then='[ -S "$SCCACHE_SERVER_UDS" ]'),
        "sccache gcc -c x.c -o x.o": Run(before=SCCACHE, then="zcbroker route sccache 0.16.0 --only-if-running"),
        "cmake -B build-sccache -DCMAKE_C_COMPILER_LAUNCHER=sccache -DCMAKE_CXX_COMPILER_LAUNCHER=sccache":
            Run(before=SCCACHE, then="cmake --build build-sccache"),
        "CARGO_INCREMENTAL=0 RUSTC_WRAPPER=sccache cargo build":
            Run(before=f"{SCCACHE}; rm -r target", then="sccache --show-stats | grep 'Cache misses (Rust)  *[1-9]'"),
        "zcbroker route sccache 0.16.0 --only-if-running": Run(),
        "zcbroker doctor --service sccache --wanted 0.16.0": Run(),
        "sccache --stop-server": Run(before=SCCACHE, then="! zcbroker route sccache 0.16.0 --only-if-running"),
        'SOLDR_RUSTC_WRAPPER="$(command -v zccache)" soldr cargo build':
            Run(before="rm -rf target; export SOLDR_LLVM_DIR=/usr/lib/llvm-14/bin SOLDR_NO_BOOTSTRAP=1", then=RELAYED),
    },
    "docs/zcb.md": {
        "cmake -DCMAKE_C_COMPILER_LAUNCHER=zcb -DCMAKE_CXX_COMPILER_LAUNCHER=zcb ..":
            Run("projects_and_daemon", before="mkdir build; cd build"),
        "RUSTC_WRAPPER=zcb cargo build": Run(),
        "make CC='zcb gcc'": Run(),
        'ln -s "$(command -v zcb)" ~/bin/gcc      # with ~/bin first in PATH': Run(before="rm -f ~/bin/gcc"),
    },
    "tests/conformance/README.md": {
        "./dev conformance                      # all languages, all cases": Elsewhere("dev", "conformance_tests"),
        "./dev conformance --languages go mute  # one of them, cases with \"mute\" in the name": Elsewhere("dev", "conformance_tests"),
    },
    "docs/languages.md": {},
    "docs/protocol.md": {},
    "docs/threat-model.md": {},
    "docs/evidence.md": {},
    **{f"client/stubs/{language}/README.md": STUBS for language in ("go", "java", "node", "python", "rust")},
}
