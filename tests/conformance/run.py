"""Does every implementation of the client keep one protocol? Runs each case of
cases/*.json with each language's runner, against real brokers, sockets and
files. README.md beside this file says what a case and a runner are. Called by
./dev conformance; ends with "cases: N passed, M failed"."""

import argparse
import collections
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from concurrent import futures

# Before gRPC is imported: it tells of every connection that ends.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# pylint: disable=wrong-import-position
from google.protobuf import json_format
from grpc_tools import protoc

import framed
import homes

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
COLUMNS = ["cpp", "python", "go", "node", "rust", "java"]
PROTOS = [f"proto/zcbroker/v1/{name}.proto" for name in ("errors", "broker", "admin", "launcher")]
PROTOS.append("proto/running_process/broker_v1.proto")
RUNNER_SECONDS = 60
AT_ONCE = 3
# In a mount namespace of the case's own: nothing in /run, and in /tmp only what
# is there already (a runner may be), but for the broker's.
PRIVATE = """
mount -t tmpfs tmpfs /run && mkdir /run/tmp && mount --rbind /tmp /run/tmp || exit 1
mount -t tmpfs tmpfs /tmp && chmod 1777 /tmp || exit 1
find /run/tmp -mindepth 1 -maxdepth 1 ! -name 'zcbroker-*' -exec ln -s -t /tmp {} + || exit 1
for entry in $ENTRIES; do
  mkdir -p -m 755 "${entry%%:*}" && chmod "${entry##*:}" "${entry%%:*}" || exit 1
done
exec "$@"
"""


def generated(into):
    """The messages, made from the tree: what the cases are checked with."""
    builtin = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    assert protoc.main(["protoc", f"-I{ROOT}", f"-I{builtin}", f"--python_out={into}", *PROTOS]) == 0
    sys.path.insert(0, into)
    # pylint: disable=import-outside-toplevel,import-error,no-name-in-module
    from proto.running_process import broker_v1_pb2
    from proto.zcbroker.v1 import broker_pb2, launcher_pb2
    return types.SimpleNamespace(broker=broker_pb2, launcher=launcher_pb2, upstream=broker_v1_pb2)


# --- Comparing


def differences(expected, seen, where=""):
    """Every key of `expected` must be there and equal; more may be there. A
    number equals its digits: JSON has no 64 bits."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        return [text for key, value in expected.items()
                for text in differences(value, seen.get(key), f"{where}.{key}" if where else key)]
    if isinstance(expected, list) and isinstance(seen, list) and len(expected) == len(seen):
        return [text for i, (one, other) in enumerate(zip(expected, seen))
                for text in differences(one, other, f"{where}[{i}]")]
    same = expected == seen and isinstance(expected, bool) == isinstance(seen, bool)
    numbers = (int, str)
    if not same and isinstance(expected, numbers) and isinstance(seen, numbers):
        same = not isinstance(expected, bool) and not isinstance(seen, bool) and str(expected) == str(seen)
    return [] if same else [f"{where}: expected {json.dumps(expected)}, got {json.dumps(seen)}"]


def canonical(case, value, pb):
    """Messages in proto3 JSON may be written in more than one way."""
    if case["op"] != "decode_response" or "response" not in value:
        return value
    message = json_format.ParseDict(value["response"], pb.broker.NegotiateResponse())
    return {"response": json_format.MessageToDict(message, preserving_proto_field_name=True)}


# --- One language


class Language:
    def __init__(self, name, spec, options, pb):
        self.name = name
        self.options = options
        self.pb = pb
        self.build = os.path.join(options.build, name)
        self.values = {"ROOT": ROOT, "BUILD": self.build, "BIN": options.bin}
        self.prepares = [self.words(line) for line in spec.get("prepare", [])]
        self.needs = spec["needs"]
        self.readme = spec.get("readme")
        if self.readme:
            self.prepares.insert(0, ["sh", "-eux", "-c", self.install_lines()])
        self.run_words = self.words(spec["run"])
        self.examples = {file: self.words(line) for file, line in spec.get("examples", {}).items()}
        self.shared = {}

    def install_lines(self):
        """The first lines of its README that a reader would type."""
        with open(os.path.join(ROOT, self.readme), encoding="utf-8") as readme:
            return readme.read().split("```sh\n", 1)[1].split("```", 1)[0]

    def words(self, line):
        words = []
        for word in line:
            for name, text in self.values.items():
                word = word.replace("${" + name + "}", text)
            words.append(word)
        return words

    def fingerprint(self):
        """Of everything that its preparation depends on."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", f"client/stubs/{self.name}", "proto"], cwd=ROOT,
            stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        digest = hashlib.sha256(json.dumps(self.prepares).encode())
        for file in sorted(listed):
            if os.path.isfile(os.path.join(ROOT, file)):
                with open(os.path.join(ROOT, file), "rb") as content:
                    digest.update(file.encode() + b"\0" + hashlib.sha256(content.read()).digest())
        return digest.hexdigest()

    def prepare(self):
        """None, or why it could not be prepared."""
        if not self.prepares:
            return None
        stamp = os.path.join(self.build, ".prepared")
        fingerprint = self.fingerprint()
        if os.path.exists(stamp):
            with open(stamp, encoding="utf-8") as known:
                if known.read() == fingerprint:
                    return None
        shutil.rmtree(self.build, ignore_errors=True)
        os.makedirs(self.build)
        begun = time.monotonic()
        log = os.path.join(self.build, "prepare.log")
        with open(log, "w", encoding="utf-8") as out:
            for line in self.prepares:
                print("+", " ".join(line), file=out, flush=True)
                done = subprocess.run(line, cwd=self.build, env={**os.environ, "ZCBROKER": ROOT},
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
                if done.returncode != 0:
                    with open(log, encoding="utf-8", errors="replace") as text:
                        return (f"{' '.join(line)} ended with {done.returncode} (Debian packages it needs: "
                                f"{', '.join(self.needs)}):\n{text.read()[-3000:]}")
        with open(stamp, "w", encoding="utf-8") as out:
            out.write(fingerprint)
        say(f"{self.name}: prepared in {time.monotonic() - begun:.0f} s")
        return None

    # --- homes that several cases share, made when the first needs them

    def home(self, kind):
        if kind not in self.shared:
            policy = "limits { concurrent_starts: 1 }\n" if kind == "busy" else ""
            home = self.shared[kind] = homes.BrokerHome(self.pb, self.options.bin, policy).start()
            if kind == "busy":
                home.begin_start("slow")
            if kind in ("live", "killed"):
                home.warm("DEMO", "demo", "1.0.0")
            if kind == "live":
                home.break_service("broken")
                home.warm("ASKED", "demo", "2.1.0")
                os.chmod(home.path("run/zcbroker/routes/demo/2.1.0.info"), 0o622)
            if kind == "killed":
                home.kill_broker()
        return self.shared[kind]

    def close(self):
        for home in self.shared.values():
            home.__exit__()
        self.shared.clear()

    # --- cases

    def problems(self, case):
        """What is wrong with this case here; nothing where all is well."""
        given = case["given"]
        if "home" in given:
            return self.try_case(case, given, self.home(given["home"]))
        with homes.Home(self.pb) as home:
            home.set_up(given)
            return self.try_case(case, given, home)

    def example_problems(self, file):
        """An example reaches a daemon through a real broker; the README has its text."""
        home = self.home("live")
        done = subprocess.run([*self.examples[file], home.path("direct.sock"), "demo", "1.0.0"],
                              env={**home.environment(), "ZCCACHE_BROKER_CONNECT": "1", "ZCBROKER_STRICT": "1"},
                              cwd=home.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=RUNNER_SECONDS, check=False)
        expected = f"pong by broker at {home.values['DEMO']}\n"
        found = []
        if done.returncode != 0 or done.stdout != expected:
            found.append(f"ended with {done.returncode}, wrote {done.stdout!r}, expected {expected!r}\n{done.stderr[-2000:]}")
        if file == next(iter(self.examples)):
            with open(os.path.join(ROOT, file), encoding="utf-8") as text, \
                 open(os.path.join(ROOT, self.readme), encoding="utf-8") as readme:
                if text.read() not in readme.read():
                    found.append(f"{self.readme} shows another example")
        return found

    def try_case(self, case, given, home):
        environment = {**home.environment(), **home.fill(case.get("env", {}))}
        environment = {name: value for name, value in environment.items() if value is not None}
        words = self.run_words
        if "private" in given:
            environment["ENTRIES"] = " ".join(home.fill(given["private"]))
            words = ["unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh", "-c", PRIVATE, "sh", *words]
        question = json.dumps({"op": case["op"], "args": home.fill(case["args"])})
        expected = canonical(case, home.fill(case["expect"]), self.pb)
        try:
            runner = subprocess.Popen(words, env=environment, cwd=home.dir, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            return [f"{words[0]}: {error.strerror}"]
        if given.get("meanwhile") == "stop_broker":
            runner.stdin.write(question)
            runner.stdin.close()
            runner.stdin = None
            home.stop_when_asked()
            question = None
        try:
            out, err = runner.communicate(question, timeout=RUNNER_SECONDS)
        except subprocess.TimeoutExpired:
            runner.kill()
            return [f"no answer within {RUNNER_SECONDS} s: {runner.communicate()[1][-2000:]}"]
        if runner.returncode != 0:
            return [f"the runner ended with {runner.returncode}: {err[-2000:]}"]
        try:
            seen = canonical(case, json.loads(out), self.pb)
        except Exception as error:  # pylint: disable=broad-except
            return [f"the runner wrote {out[:400]!r}: {error}"]
        return differences(expected, seen)


# --- All of it

PRINTING = threading.Lock()


def say(text):
    with PRINTING:
        print(text, flush=True)


def with_defaults(case, group):
    defaults = group.get("defaults", {})
    args = {**defaults.get("args", {}), **case.get("args", {})}
    given = {**{key: value for key, value in defaults.items() if key.startswith("info")},
             **case.get("given", defaults.get("given", {}))}
    return {**case, "op": group["op"], "args": args, "given": given}


def load_cases(only):
    groups = []
    for leaf in sorted(os.listdir(os.path.join(HERE, "cases"))):
        with open(os.path.join(HERE, "cases", leaf), encoding="utf-8") as file:
            group = json.load(file)
        name = leaf.removesuffix(".json")
        cases = [with_defaults(case, group) for case in group["cases"]
                 if not only or any(text in f"{name}/{case['name']}" for text in only)]
        if cases:
            groups.append((name, cases))
    return groups


def prepared(language):
    """None, or why not."""
    try:
        return language.prepare()
    except OSError as error:
        return f"{error}; Debian packages it needs: {', '.join(language.needs)}"


def prepare_language(language):
    why = prepared(language)
    if why is not None:
        say(f"FAILED {language.name}: {why}")
    return why is None


def attempt(find_problems, *args):
    try:
        return find_problems(*args)
    except Exception as error:  # pylint: disable=broad-except
        return [f"{type(error).__name__}: {error}"]


def report(language, group, name, found, tally):
    tally[group, language.name].append(not found)
    if found:
        say(f"FAILED {language.name} {group}/{name}\n  " + "\n  ".join(found))


def run_language(language, groups, tally, once_more):
    begun = time.monotonic()
    why = prepared(language)

    def count(group, name, find_problems, subject):
        if why is not None:
            tally[group, language.name].append(False)
            return
        found = attempt(find_problems, subject)
        if found:
            # Cases have time limits, and several languages run at once.
            once_more.append((language, group, name, find_problems, subject))
        else:
            report(language, group, name, found, tally)

    try:
        for file in language.examples:
            count("examples", file, language.example_problems, file)
        for group, cases in groups:
            for case in cases:
                if case.get("needs") != "root" or os.geteuid() == 0:
                    count(group, case["name"], language.problems, case)
    finally:
        language.close()
    if why is not None:
        say(f"FAILED {language.name}: {why}")
    say(f"{language.name}: {time.monotonic() - begun:.0f} s")


def run_alone(once_more, tally):
    """What failed beside others, with the machine to itself."""
    for language, group, name, find_problems, subject in once_more:
        found = attempt(find_problems, subject)
        language.close()
        if not found:
            say(f"{language.name} {group}/{name}: failed beside others, passed alone")
        report(language, group, name, found, tally)


def table(groups, names, tally):
    rows = [["", *names]]
    for group in [*(group for group, _ in groups), "examples"]:
        cells = [tally[group, name] for name in names]
        rows.append([group, *(f"{sum(cell)}/{len(cell)}" if cell else "-" for cell in cells)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of built programs (bazel-bin)")
    parser.add_argument("--build", required=True, help="a folder for what runners are built into; kept between runs")
    parser.add_argument("--peers", help="the folder of real programs (./dev peers); without it no framed half")
    parser.add_argument("--languages", help="comma-separated; all of languages.json else")
    parser.add_argument("--prepare-only", action="store_true", help="install and build, as the READMEs say, and run nothing")
    parser.add_argument("only", nargs="*", help="parts of GROUP/CASE names")
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    options.build = os.path.abspath(options.build)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with open(os.path.join(HERE, "languages.json"), encoding="utf-8") as file:
        specs = json.load(file)
    chosen = options.languages.split(",") if options.languages else list(specs)
    names = sorted(chosen, key=lambda name: COLUMNS.index(name) if name in COLUMNS else len(COLUMNS))
    groups = load_cases(options.only)
    tally = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as stubs:
        pb = generated(stubs)
        languages = [Language(name, specs[name], options, pb) for name in names]
        # Some cases wait for time-outs, and the others are processor time.
        with futures.ThreadPoolExecutor(AT_ONCE) as pool:
            if options.prepare_only:
                return 0 if all(list(pool.map(prepare_language, languages))) else 1
            once_more = []
            running = [pool.submit(run_language, language, groups, tally, once_more) for language in languages]
            if options.peers:
                running.append(pool.submit(framed.run, options, pb, differences, say))
            ended = [job.result() for job in running]
        run_alone(once_more, tally)
        table(groups, names, tally)
        if options.peers:
            results, text = ended[-1]
            tally.update((("framed", which), cell) for which, cell in results.items())
            say(text)
    results = [passed for cell in tally.values() for passed in cell]
    print(f"cases: {sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
