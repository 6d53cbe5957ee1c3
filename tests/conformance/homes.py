"""What a case finds: directories, sockets that answer or do not, brokers.

Every home is a short private directory; only processes that were started here
are ended, by pid.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import json_format

# Ends with the thread that started it, however that ends.
DYING_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
FOREIGN_LISTENER = """
import os, signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chown(sys.argv[1], 65534, 65534)
os.chmod(sys.argv[1], 0o777)
os.setresuid(65534, 65534, 65534)
listener.listen(64)
print("listening", flush=True)
signal.pause()
"""
REFERENCE_LANES = ["WIRE_LANE_FRAME_V1", "WIRE_LANE_PROST_V16", "WIRE_LANE_BINCODE_V15"]


def wait_until(what, condition, seconds=20.0):
    """The one way to wait for what cannot tell: asks until it holds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for: {what}")
        select.select([], [], [], 0.01)


def start_time():
    """This process's, in clock ticks since boot."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rsplit(")", 1)[1].split()[19]


class Home:
    """A directory with `run` in it, and whatever a case puts there."""

    def __init__(self, pb):
        self.pb = pb
        self.dir = tempfile.mkdtemp(prefix="zc", dir="/tmp")
        self.closing = contextlib.ExitStack()
        self.closing.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.values = {"RUN": self.dir, "UID": str(os.geteuid()), "PID": str(os.getpid()),
                       "START": start_time(), "MNT": os.readlink("/proc/self/ns/mnt")}
        self.make_dir("run", 0o700)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closing.close()

    def path(self, leaf):
        return os.path.join(self.dir, leaf)

    def environment(self):
        return {"HOME": self.dir, "XDG_RUNTIME_DIR": self.path("run"), "PATH": os.environ["PATH"], "USER": "case",
                "LANG": "C.UTF-8"}

    def fill(self, value):
        """`value` with every ${NAME} replaced."""
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, str):
            for name, text in self.values.items():
                value = value.replace("${" + name + "}", text)
        return value

    def end_processes(self):
        """Those that brokers have left behind: by their environment."""
        mark = f"XDG_RUNTIME_DIR={self.path('run')}".encode()
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    if mark in environ.read().split(b"\0"):
                        os.kill(int(name), signal.SIGKILL)
            except OSError:
                continue

    # --- files

    def make_dir(self, leaf, mode):
        os.makedirs(self.path(leaf), 0o700, exist_ok=True)
        os.chmod(self.path(leaf), mode)

    def set_up(self, given):
        """`given` of a case; the README beside this file has its words."""
        for entry in given.get("tree", [{"path": "run/zcbroker", "dir": "0700"}]):
            path = self.path(entry["path"])
            if "dir" in entry:
                self.make_dir(entry["path"], int(entry["dir"], 8))
            elif "link" in entry:
                os.symlink(self.fill(entry["link"]), path)
            else:
                with open(path, "wb") as out:
                    out.write(bytes.fromhex(entry["hex"]))
                os.chmod(path, int(entry.get("mode", "0600"), 8))
        for info in given.get("infos", []):
            self.write_info(**self.fill({**info, "info": {**given["info"], **info.get("info", {})},
                                         "at": info.get("at", given["info_at"])}))
        for leaf, mode in given.get("chmod", {}).items():
            os.chmod(self.path(leaf), int(mode, 8))
        for leaf, kind in given.get("listen", {}).items():
            self.listen(leaf, self.fill(kind))

    def write_info(self, info, at, mode="0600", padding=0):
        message = json_format.ParseDict(info, self.pb.launcher.RouteInfo())
        message.binary = "b" * padding
        folder = os.path.dirname(at)
        while folder != "run/zcbroker":
            self.make_dir(folder, 0o700)
            folder = os.path.dirname(folder)
        with open(self.path(at), "wb") as out:
            out.write(message.SerializeToString())
        os.chmod(self.path(at), int(mode, 8))

    # --- sockets

    def listen(self, leaf, kind):
        os.makedirs(os.path.dirname(self.path(leaf)), 0o700, exist_ok=True)
        if isinstance(kind, dict):
            self.scripted_broker(leaf, kind)
            return
        if kind == "foreign":
            self.foreign_listener(leaf)
            return
        listener = socket.socket(socket.AF_UNIX)
        self.closing.callback(listener.close)
        listener.bind(self.path(leaf))
        if kind == "dead":  # a name nobody listens at any more
            listener.close()
            return
        listener.listen(0 if kind == "full" else 64)
        if kind == "full":
            self.fill_queue(leaf)
        elif kind == "hanging_up":
            threading.Thread(target=self.hang_up, args=(listener,), daemon=True).start()
        elif kind != "accepting":  # which does neither read nor write
            raise ValueError(f"nobody knows how to be {kind!r}")

    def fill_queue(self, leaf):
        while True:
            waiting = socket.socket(socket.AF_UNIX)
            self.closing.callback(waiting.close)
            waiting.setblocking(False)
            try:
                waiting.connect(self.path(leaf))
            except BlockingIOError:
                return

    @staticmethod
    def hang_up(listener):
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    def foreign_listener(self, leaf):
        """Listens as another user, which takes root."""
        child = subprocess.Popen([*DYING_WITH_US, sys.executable, "-c", FOREIGN_LISTENER, self.path(leaf)],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.closing.callback(child.wait)
        self.closing.callback(child.kill)
        self.closing.callback(child.stdout.close)
        assert child.stdout.readline() == b"listening\n", f"no foreign listener at {leaf}"

    def scripted_broker(self, leaf, answer):
        """A gRPC server that gives one answer: a route, a code, or none at all."""

        def negotiate(_, context):
            context.send_initial_metadata(())
            if "code" in answer:
                context.abort(grpc.StatusCode[answer["code"]], "as the case says")
            if "silent" in answer:
                released.wait(60)
            return json_format.ParseDict(answer["response"], self.pb.broker.NegotiateResponse())

        released = threading.Event()
        handler = grpc.unary_unary_rpc_method_handler(
            negotiate, request_deserializer=self.pb.broker.NegotiateRequest.FromString,
            response_serializer=lambda message: message.SerializeToString())
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("zcbroker.v1.Broker", {"Negotiate": handler}),))
        server.add_insecure_port(f"unix:{self.path(leaf)}")
        server.start()
        self.closing.callback(lambda: server.stop(0).wait())
        self.closing.callback(released.set)


class BrokerHome(Home):
    """A home with a zcbrokerd, the reference backend as several services, and
    services that cannot be had."""

    def __init__(self, pb, bin_dir, policy=""):
        super().__init__(pb)
        self.bin = bin_dir
        self.broker = None
        self.waiting = []
        self.closing.callback(self.end)
        for leaf in ("run/zcbroker", ".config/zcbroker/services", ".config/running-process/services", "state", "work"):
            self.make_dir(leaf, 0o700)
        self.backend = os.path.join(bin_dir, "client/backend_sdk/reference/zcb-reference-backend")
        lanes = "".join(f"lanes: {lane}\n" for lane in REFERENCE_LANES)
        speaks = "probe: PROBE_ZCCACHE_PING\n" + lanes
        long_version = "1.0.0-a.version.longer.than.forty.bytes.in.all.by.far"
        self.define("demo", ["1.0.0", "2.0.0-rc.1", "1.5.0", "2.1.0", long_version], speaks)
        self.define("cache", ["1.0.0"], speaks + "endpoint_rule: ENDPOINT_RULE_ZCCACHE\n")
        self.define("opaque", ["1.0.0"], "")
        self.define("slow", ["1.0.0"], speaks, "--start-delay-ms", "60000")
        self.define("slower", ["1.0.0"], speaks, "--start-delay-ms", "60000")
        self.define("bad", ["1.0.0"], speaks, "--exit-at-once", "3")
        self.define("broken", ["1.0.0"], speaks, "--exit-at-once", "3")
        self.upstream_definitions = self.path(".config/running-process/services")
        upstream = self.pb.upstream.ServiceDefinition(
            service_name="legacy", binary_path=self.backend, version_allow_list=["3.2.1"],
            per_version_binary_dir=os.path.dirname(os.path.realpath(self.backend)))
        with open(os.path.join(self.upstream_definitions, "legacy.servicedef"), "wb") as out:
            out.write(upstream.SerializeToString())
        with open(self.path("policy.textproto"), "w", encoding="utf-8") as out:
            out.write(policy)
        os.chmod(self.path("policy.textproto"), 0o600)

    def define(self, name, versions, more, *arguments):
        text = f'name: "{name}"\n'
        text += "".join(f'binaries {{ path: "{self.backend}" version: "{version}" }}\n' for version in versions)
        for argument in ("--endpoint", "{endpoint}", "--report-version", "{version}", *arguments):
            text += f'args: "{argument}"\n'
        with open(self.path(f".config/zcbroker/services/{name}.textproto"), "w", encoding="utf-8") as out:
            out.write(text + more)

    def environment(self):
        return {**super().environment(), "XDG_STATE_HOME": self.path("state")}

    @property
    def socket(self):
        return self.path("run/zcbroker/broker.sock")

    def start(self):
        with open(self.path("broker.log"), "ab") as log:
            self.broker = subprocess.Popen(
                [*DYING_WITH_US, os.path.join(self.bin, "service/zcbrokerd"), "--allow-root", "--policy-file",
                 self.path("policy.textproto")],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)
        wait_until("the broker to answer", lambda: self.cli("status").returncode == 0)
        return self

    def cli(self, *words):
        return subprocess.run([os.path.join(self.bin, "client/cli/zcbroker"), *words], env=self.environment(),
                              cwd=self.dir, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              check=False)

    def warm(self, name, service, version):
        """Starts a backend; its endpoint is ${name} from now on."""
        done = self.cli("route", service, version, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        self.values[name] = json.loads(done.stdout)["negotiation"]["route"]["endpoint"]

    def break_service(self, service):
        wait_until(f"{service} to be given up",
                   lambda: json.loads(self.cli("route", service, "1.0.0", "--json").stdout)["reason"] == "BACKEND_BROKEN")

    def begin_start(self, service):
        """A start that goes on, with a caller who waits for it."""
        self.waiting.append(subprocess.Popen(
            [os.path.join(self.bin, "client/cli/zcbroker"), "route", service, "1.0.0"], env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_until(f"{service} to be starting", lambda: "starting" in self.cli("status", "--json").stdout.lower())

    def stop_when_asked(self):
        """Tells the broker to end as soon as somebody negotiates."""
        wait_until("a negotiation", lambda: int(self.counters().get("negotiations", 0)) > 0)
        self.broker.send_signal(signal.SIGTERM)

    def counters(self):
        return json.loads(self.cli("status", "--json").stdout)["broker"]["counters"]

    def kill_broker(self):
        self.broker.kill()
        self.broker.wait(10)

    def end(self):
        if self.broker is not None:
            self.cli("down", "--stop-backends")
            if self.broker.poll() is None:
                self.broker.kill()
            self.broker.wait(20)
        for caller in self.waiting:
            caller.wait(20)
        self.end_processes()
