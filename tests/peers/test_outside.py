"""gRPC from outside: a Python client of generated stubs, grpcurl, ghz,
grpc-health-probe; and a monitoring system."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

from harness import Home, Options, metric_families, peer

VERSION = "1.11.22"
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def generate_stubs(into):
    """What a tool author does: protoc over our .proto files."""
    protos = [f"proto/zcbroker/v1/{name}.proto" for name in ("errors", "broker", "admin")]
    status = protoc.main(["protoc", f"-I{ROOT}", f"-I{os.path.join(os.path.dirname(protoc.__file__), '_proto')}",
                          f"--python_out={into}", f"--grpc_python_out={into}", *protos])
    assert status == 0
    sys.path.insert(0, into)


class Outside(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stubs = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.stubs.cleanup)
        generate_stubs(cls.stubs.name)
        from proto.zcbroker.v1 import broker_pb2, broker_pb2_grpc  # pylint: disable=import-outside-toplevel
        cls.pb = broker_pb2
        cls.grpc = broker_pb2_grpc

    def setUp(self):
        self.home = Home(on_path=f"zccache-{VERSION}")
        self.addCleanup(self.home.__exit__)
        self.home.start_broker()

    def channel(self):
        channel = grpc.insecure_channel(f"unix:{self.home.socket}",
                                        options=[("grpc.default_authority", "localhost")])
        self.addCleanup(channel.close)
        return channel

    def stub(self):
        return self.grpc.BrokerStub(self.channel())

    def test_python_gets_a_working_endpoint(self):
        response = self.stub().Negotiate(
            self.pb.NegotiateRequest(service="zccache", wanted_version=VERSION, client_name="python"),
            timeout=15)
        self.assertEqual(response.origin, self.pb.ROUTE_ORIGIN_STARTED)
        self.assertEqual([step.name for step in response.steps], ["look", "spawn", "bind", "probe", "publish"])
        with socket.socket(socket.AF_UNIX) as data:
            data.settimeout(5)
            data.connect(response.route.endpoint)
            ping = bytes.fromhex("080000000f00000000000000")  # Ping and Pong are the same on v15
            data.sendall(ping)
            self.assertEqual(data.recv(64), ping)

    def test_python_can_read_a_refusal(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.stub().Negotiate(self.pb.NegotiateRequest(service="zccache", wanted_version="0.0.1"), timeout=15)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(raised.exception)
        self.assertTrue(any(detail.Unpack(info) for detail in status.details))
        self.assertEqual((info.domain, info.reason), ("zcbroker", "VERSION_NOT_INSTALLED"))
        self.assertEqual(info.metadata["installed_versions"], VERSION)

    def test_an_rpc_of_a_later_version_is_unimplemented(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.channel().unary_unary("/zcbroker.v1.Broker/ToCome")(b"", timeout=15)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def grpcurl(self, *words, data=None):
        command = [os.path.join(peer("grpcurl-1.8.9"), "grpcurl"), "-plaintext", "-unix",
                   "-authority", "localhost", "-max-time", "15"]
        if data is not None:
            command += ["-d", json.dumps(data)]
        return subprocess.run([*command, self.home.socket, *words], capture_output=True, text=True,
                              timeout=60, check=False)

    def test_grpcurl_by_reflection(self):
        self.assertEqual(self.grpcurl("list").stdout.split(),
                         ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
                          "zcbroker.v1.Admin", "zcbroker.v1.Broker"])
        done = self.grpcurl("zcbroker.v1.Broker/Negotiate",
                            data={"service": "zccache", "wanted_version": VERSION})
        self.assertEqual(done.returncode, 0, done.stderr)
        endpoint = json.loads(done.stdout)["route"]["endpoint"]
        with socket.socket(socket.AF_UNIX) as data:
            data.connect(endpoint)

    def test_the_standard_health_service_says_serving(self):
        channel = grpc.insecure_channel(f"unix:{self.home.socket}",
                                        options=[("grpc.default_authority", "localhost")])
        self.addCleanup(channel.close)
        check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda message: message, lambda raw: raw)
        self.assertEqual(check(b"", timeout=15), b"\x08\x01")  # status: SERVING

    def test_grpc_health_probe(self):
        probe = [os.path.join(peer("grpc-health-probe-0.4.24"), "grpc-health-probe"),
                 f"-addr=unix:{self.home.socket}"]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, "status: SERVING\n"))
        self.home.stop_broker()
        self.assertNotEqual(subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode, 0)

    def test_ghz_negotiates_without_an_error(self):
        calls = 2_000 if Options.sanitized else 50_000
        done = subprocess.run(
            [os.path.join(peer("ghz-0.117.0"), "ghz"), "--insecure", "--authority", "localhost", "--format", "json",
             "--total", str(calls), "--concurrency", "32", "--connections", "4", "--timeout", "15s",
             "--call", "zcbroker.v1.Broker/Negotiate",
             "--data", json.dumps({"service": "zccache", "wanted_version": VERSION}), f"unix:{self.home.socket}"],
            capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual(report["count"], calls)
        self.assertEqual((report["statusCodeDistribution"], report["errorDistribution"]), ({"OK": calls}, {}))
        self.assertEqual(len(self.home.daemons()), 1)

    def test_metrics_are_read_by_prometheus(self):
        self.assertEqual(self.home.cli("route", "zccache", VERSION).returncode, 0)
        self.assertNotEqual(self.home.cli("route", "zccache", "0.0.1").returncode, 0)
        families = metric_families(self.home.cli("metrics").stdout)

        def value(family, sample, **labels):
            return [s.value for s in families[family].samples if s.name == sample and s.labels == labels]

        self.assertEqual(value("zcbroker_backends_started", "zcbroker_backends_started_total"), [1.0])
        self.assertEqual(value("zcbroker_refused", "zcbroker_refused_total", what="VERSION_NOT_INSTALLED"), [1.0])
        self.assertEqual(value("zcbroker_backends", "zcbroker_backends", service="zccache", version=VERSION,
                               state="ready"), [1.0])
        for step in ("look", "spawn", "bind", "probe", "publish"):
            self.assertEqual(value("zcbroker_start_step_seconds", "zcbroker_start_step_seconds_count", step=step),
                             [1.0])
        self.assertEqual(families["zcbroker_answer_seconds"].type, "histogram")

    def test_grpcurl_shows_a_refusal(self):
        done = self.grpcurl("zcbroker.v1.Broker/Negotiate", data={"service": "zccache", "wanted_version": "0.0.1"})
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Code: NotFound", done.stderr)
        self.assertIn('"reason": "VERSION_NOT_INSTALLED"', done.stderr)
        self.assertIn('"domain": "zcbroker"', done.stderr)
