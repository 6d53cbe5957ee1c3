"""Metrics over HTTP: what a Prometheus server gets, and what anybody else on
the machine can do there."""

import http.client
import json
import os
import resource
import select
import signal
import socket
import unittest

from harness import Home, metric_families, wait_until

MOST = 16


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def connect(port):
    peer_socket = socket.create_connection(("127.0.0.1", port), timeout=20)
    return peer_socket


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return status.read()


def answers(port):
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True


class MetricsListener(unittest.TestCase):
    def setUp(self):
        self.home = Home(on_path="zccache-1.11.22")
        self.addCleanup(self.home.__exit__)
        self.port = free_port()

    def start(self):
        self.home.start_broker("--metrics-port", str(self.port))

    def ask(self, method="GET", path="/metrics", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.addCleanup(connection.close)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers

    def send(self, request):
        """What comes back to bytes that need be no HTTP."""
        with connect(self.port) as raw:
            raw.sendall(request)
            got = b""
            try:
                while piece := raw.recv(65536):
                    got += piece
            except ConnectionResetError:
                pass
            return got

    def test_a_scrape_is_what_the_command_line_prints(self):
        self.start()
        self.assertEqual(self.home.cli("route", "zccache", "1.11.22").returncode, 0)
        status, text, headers = self.ask()
        self.assertEqual((status, headers["Content-Type"]),
                         (200, "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        scraped = set(metric_families(text))
        printed = set(metric_families(self.home.cli("metrics").stdout))
        self.assertIn("zcbroker_backends_started", scraped)
        self.assertEqual(scraped | {"zcbroker_metrics"}, printed | {"zcbroker_metrics"})

    def test_without_the_option_nobody_listens(self):
        self.home.start_broker()
        self.assertFalse(answers(self.port))

    def test_it_listens_at_the_loopback_interface_only(self):
        self.start()
        wanted = f"0100007F:{self.port:04X}"
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        self.assertEqual([row[1] for row in rows if row[1].endswith(f":{self.port:04X}") and row[3] == "0A"], [wanted])

    def test_what_is_no_scrape_is_told_so(self):
        self.start()
        for want, words, headers in ((404, ("GET", "/"), {}), (405, ("POST", "/metrics"), {}),
                                     (403, ("GET", "/metrics"), {"Host": "attacker.example"}),
                                     (200, ("GET", "/metrics?x=1"), {"Host": f"LOCALHOST:{self.port}"}),
                                     (403, ("GET", "/metrics"), {"Host": "[::1].attacker.example"}),
                                     (200, ("GET", "/metrics"), {"Host": "[::1]"})):
            with self.subTest(words=words, headers=headers):
                status, text, _ = self.ask(*words, **headers)
                self.assertEqual(status, want)
                self.assertNotEqual(text.strip(), "")
        self.assertIn(b"400 Bad Request", self.send(b"\x00\x01\x02 what\r\n\r\n"))
        self.assertIn(b"431 ", self.send(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 8192))
        self.assertEqual(self.home.cli("status").returncode, 0)

    def test_a_silent_one_is_closed_and_many_leave_the_rest_alone(self):
        self.start()
        silent = [connect(self.port) for _ in range(MOST)]
        for one in silent:
            self.addCleanup(one.close)
        # Over the limit: closed at once, and counted.
        self.assertEqual(self.send(b""), b"")
        self.assertEqual(self.home.cli("route", "zccache", "1.11.22").returncode, 0)
        self.assertEqual(self.home.counters()["metrics.too_many"], 1)
        # Anybody could fill the log with it.
        self.assertNotIn("metrics.too_many", self.home.cli("events").stdout)
        for one in silent:
            self.assertEqual(one.recv(1), b"", "closed after 5 s")
        self.assertEqual(self.ask()[0], 200)

    def test_the_text_is_made_once_a_second(self):
        self.start()
        first = self.ask()[1]
        self.assertEqual(self.home.cli("route", "zccache", "0.0.1").returncode, 5)
        self.assertNotIn('what="VERSION_NOT_INSTALLED"', first)
        wait_until("the refusal", lambda: 'what="VERSION_NOT_INSTALLED"' in self.ask()[1])
        texts = {self.ask()[1] for _ in range(20)}
        self.assertLess(len(texts), 4)

    def test_out_of_descriptors_it_ends_in_order(self):
        """A signal comes while it pauses because it could not accept."""
        self.home.start_broker("--metrics-port", str(self.port), MALLOC_PERTURB_="165")
        _, hard = resource.prlimit(self.home.broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.home.broker.pid, resource.RLIMIT_NOFILE, (5, hard))
        waiting = connect(self.port)
        self.addCleanup(waiting.close)
        select.select([], [], [], 0.2)  # some failures
        self.home.broker.send_signal(signal.SIGSTOP)
        wait_until("it to stop", lambda: "(stopped)" in status_of(self.home.broker.pid))
        select.select([], [], [], 0.2)  # the pause is over meanwhile
        self.home.broker.send_signal(signal.SIGTERM)
        self.home.broker.send_signal(signal.SIGCONT)
        self.assertEqual(self.home.broker.wait(30), 0)

    def test_a_port_that_is_taken_stops_no_broker(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.port))
            taken.listen()
            self.start()
            self.assertEqual(self.home.cli("route", "zccache", "1.11.22").returncode, 0)
            self.assertIn("no metrics over HTTP", self.home.broker_log())
            problems = json.loads(self.home.cli("status", "--json").stdout)["broker"]["problems"]
            self.assertEqual([problem["where"] for problem in problems], ["--metrics-port"])
            self.assertIn("already in use", problems[0]["what"])

    def test_an_upgrade_keeps_it(self):
        self.home.start_kept_broker("--metrics-port", str(self.port))
        self.assertEqual(self.ask()[0], 200)
        before = self.home.kept_broker()
        self.home.broker.send_signal(signal.SIGUSR2)
        wait_until("the new broker", lambda: self.home.kept_broker() not in (before, None), 30)
        wait_until("the old one's end", lambda: not os.path.exists(f"/proc/{before}"), 30)
        wait_until("it to be scraped", lambda: answers(self.port) and self.ask()[0] == 200, 30)


if __name__ == "__main__":
    unittest.main()
