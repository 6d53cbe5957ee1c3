"""`zcbroker report`: pages of a real broker's, read by a real browser."""

import json
import os
import signal
import subprocess
import unittest

from browser import Browser
from harness import Home, program, wait_until

HOSTILE = "<script>document.title='taken'</script>"
WIDTHS = (400, 1400)

# Boxes of what was drawn: [class, left, right, width, height].
BOXES = """return [...document.querySelectorAll('%s')].map(e => {
  const box = e.getBoundingClientRect();
  return [e.getAttribute('class'), box.left, box.right, box.width, box.height];
})"""


def define(home):
    """A service in two versions, and one that does not start."""
    folder = os.path.join(home.dir, ".config", "zcbroker", "services")
    os.makedirs(folder)
    backend = program("client/backend_sdk/reference/zcb-reference-backend")
    with open(os.path.join(folder, "demo.textproto"), "w", encoding="utf-8") as out:
        out.write(f"""name: "demo"
binaries {{ path: "{backend}" version: "1.0.0" }}
binaries {{ path: "{backend}" version: "2.0.0" }}
args: "--endpoint" args: "{{endpoint}}" args: "--report-version" args: "{{version}}"
probe: PROBE_ZCCACHE_PING
lanes: WIRE_LANE_FRAME_V1
""")
    script = os.path.join(home.dir, "failing")
    with open(script, "w", encoding="utf-8") as out:
        out.write(f'#!/bin/sh\necho "{HOSTILE}"\nexit 3\n')
    os.chmod(script, 0o700)
    home.write_definition("failing", "1.0.0", script, [])


class Report(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.__exit__)
        self.page = os.path.join(self.home.dir, "page.html")

    def report(self, *words):
        done = self.home.cli("report", self.page, "--json", *words)
        self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        return json.loads(done.stdout)

    def tell(self):
        """Two starts, one that fails, an end, refusals: in this order."""
        home = self.home
        define(home)
        home.start_broker()
        for version in ("1.0.0", "2.0.0", "1.0.0", "1.0.0"):
            self.assertEqual(home.cli("route", "demo", version).returncode, 0)
        self.assertEqual(home.cli("route", "failing", "1.0.0").returncode, 8)
        self.assertEqual(home.cli("route", "demo", "9.9.9").returncode, 5)
        self.assertEqual(home.cli("route", "demo", HOSTILE).returncode, 2)
        self.assertEqual(home.cli("stop", "demo", "2.0.0").returncode, 0)
        # Refused, it goes without the broker, and finds nobody.
        self.assertEqual(home.cli("compile", "--service", "demo", "--wanted", "9.9.9", "--", "gcc", "-c", "x.c").returncode, 1)

    def test_pictures_show_what_has_happened(self):
        self.tell()
        said = self.report()
        self.assertEqual((said["starts"], said["failed_starts"], said["wedged"], said["replays"]), ("3", "1", "0", "0"))
        self.assertEqual((said["refusals"], said["fallbacks"]), ("4", "1"))
        self.assertEqual(os.stat(self.page).st_mode & 0o777, 0o600)
        self.assertEqual(int(said["bytes"]), os.path.getsize(self.page))
        with Browser() as browser:
            for width in WIDTHS:
                for scheme in ("light", "dark"):
                    with self.subTest(width=width, scheme=scheme):
                        self.look(browser, width, scheme)
            requests, _ = browser.show(self.page, scripts=False)
            self.assertEqual(requests, [f"file://{self.page}"])

    def look(self, browser, width, scheme):
        requests, console = browser.show(self.page, width, scheme)
        if folder := os.environ.get("SCREENSHOTS"):
            browser.screenshot(os.path.join(folder, f"report-{width}-{scheme}.png"))
        self.assertEqual(requests, [f"file://{self.page}"])
        self.assertEqual(console, [])
        self.assertNotEqual(browser.run("return document.title"), "taken")
        self.assertEqual(browser.run("return document.querySelectorAll('script').length"), 0)
        self.assertIn(HOSTILE, browser.run("return document.querySelector('#refusals').textContent"))
        self.assertIn(HOSTILE, browser.run("return document.querySelector('#faults').textContent"))
        # Paper is white or not, as the reader has it.
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        self.assertEqual(paper == "rgb(255, 255, 255)", scheme == "light", paper)

        def boxes(selector):
            return browser.run(BOXES % selector)

        pictures = boxes("svg.picture")
        self.assertEqual([kind.split()[1] for kind, *_ in pictures][:3], ["timeline", "starts", "distribution"])
        for kind, left, right, drawn, height in pictures:
            self.assertTrue(drawn >= 200 and height >= 12 and 0 <= left and right <= width, (kind, left, right, height))
        self.assertEqual(len(boxes("svg.starts g.start")), 3)
        self.assertEqual([kind for kind, *_ in boxes("svg.starts rect.failed")], ["failed"])
        steps = [kind for kind, *_ in boxes("svg.starts g.start:first-child rect")]
        self.assertEqual(steps, ["look", "spawn", "bind", "probe", "publish"][:len(steps)])
        self.assertGreaterEqual(len(steps), 4)
        lanes = browser.run("return [...document.querySelectorAll('svg.timeline g.lane > text')].map(e => e.textContent)")
        self.assertEqual(lanes, ["demo 1.0.0", "demo 2.0.0", "failing 1.0.0"])
        phases = [kind for kind, *_ in boxes("svg.timeline g.lane rect:not(.rail)")]
        self.assertEqual(phases, ["starting", "ready", "starting", "ready", "draining", "failed"])
        self.assertEqual(len(boxes("svg.timeline g.marks")), 4)
        for kind, left, right, drawn, height in boxes("svg.picture rect, svg.picture circle, svg.picture text"):
            self.assertTrue(drawn >= 1 and height >= 1, (kind, drawn, height))
            self.assertTrue(left >= 0 and right <= width, (kind, left, right))
        ticks = boxes("svg.timeline line.grid + text")
        self.assertGreaterEqual(len(ticks), 2)
        self.assertEqual([], [pair for pair in zip(ticks, ticks[1:]) if pair[0][2] > pair[1][1]])
        self.assertLessEqual(browser.run("return document.documentElement.scrollWidth"), width)
        counts = browser.run("return [...document.querySelectorAll('#answers g.bucket rect title')]"
                             ".map(e => Number(e.textContent.split(': ')[1])).reduce((a, b) => a + b, 0)")
        self.assertGreaterEqual(counts, 3)

    def test_a_broker_that_is_watched_shows_rates(self):
        define(self.home)
        self.home.start_broker()
        self.home.cli("route", "demo", "1.0.0")
        watching = subprocess.Popen([program("client/cli/zcbroker"), "report", self.page, "--for", "3s", "--json"],
                                    env=self.home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while watching.poll() is None:
            self.home.cli("route", "demo", "1.0.0")
        out, errors = watching.communicate()
        self.assertEqual((watching.returncode, errors), (0, ""))
        self.assertEqual(json.loads(out)["cut_short"], "")
        with Browser() as browser:
            for width in WIDTHS:
                browser.show(self.page, width)
                if folder := os.environ.get("SCREENSHOTS"):
                    browser.screenshot(os.path.join(folder, f"watched-{width}.png"))
                rates = browser.run("return [...document.querySelector('svg.series').querySelectorAll('rect title')]"
                                    ".map(e => parseFloat(e.textContent.split(': ')[1]))")
                self.assertGreaterEqual(len(rates), 5)
                self.assertGreater(max(rates), 1)
                self.assertLessEqual(browser.run("return document.documentElement.scrollWidth"), width)

    def test_an_interrupt_ends_the_watching_and_not_the_report(self):
        self.home.start_broker()
        watching = subprocess.Popen([program("client/cli/zcbroker"), "report", self.page, "--for", "10m"],
                                    env=self.home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        before = self.home.counters()["connections.grpc"]
        wait_until("it to watch", lambda: self.home.counters()["connections.grpc"] > before + 1)
        watching.send_signal(signal.SIGINT)
        out, errors = watching.communicate(timeout=30)
        self.assertEqual((watching.returncode, errors), (0, ""))
        self.assertIn(f"wrote {self.page}: ", out)

    def test_a_broker_that_goes_away_is_told_of(self):
        self.home.start_broker()
        watching = subprocess.Popen([program("client/cli/zcbroker"), "report", self.page, "--for", "10m", "--json"],
                                    env=self.home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        before = self.home.counters()["connections.grpc"]
        wait_until("it to watch", lambda: self.home.counters()["connections.grpc"] > before + 1)
        self.home.kill_broker()
        out, errors = watching.communicate(timeout=30)
        self.assertEqual(watching.returncode, 3)
        self.assertNotEqual(json.loads(out)["cut_short"], "")
        self.assertTrue(errors.startswith("zcbroker: "), errors)
        with open(self.page, encoding="utf-8") as page:
            self.assertIn("The watching ended early: ", page.read())

    def test_a_window_is_what_was_asked_for(self):
        self.tell()
        self.assertEqual(self.report("--since", "1h")["starts"], "3")
        with open(self.page, encoding="utf-8") as page:
            text = page.read()
        self.assertIn("what was before is not known", text)
        self.assertIn('<rect class="unknown"', text)
        said = self.report("--since", "1us")
        self.assertEqual((said["events"], said["starts"], said["refusals"]), ("0", "0", "0"))

    def test_a_report_takes_the_place_of_a_report_alone(self):
        self.home.start_broker()
        self.report()
        self.report()
        precious = os.path.join(self.home.dir, "precious.c")
        with open(precious, "w", encoding="utf-8") as out:
            out.write("int precious;\n")
        link = os.path.join(self.home.dir, "link.html")
        os.symlink(self.page, link)
        for file in (precious, self.home.dir, link, "/dev/null"):
            done = self.home.cli("report", file)
            self.assertEqual(done.returncode, 1, file)
            self.assertIn(" is there and no report", done.stderr)
        with open(precious, encoding="utf-8") as text:
            self.assertEqual(text.read(), "int precious;\n")
        self.assertEqual(self.home.cli("report", os.path.join(self.home.dir, "no", "page.html")).returncode, 1)
        self.assertEqual(sorted(name for name in os.listdir(self.home.dir) if name.startswith("page")), ["page.html"])

    def test_without_a_broker_nothing_is_written(self):
        self.assertEqual(self.home.cli("report", self.page).returncode, 3)
        self.assertEqual(self.home.cli("report", self.page, "--since", "soon").returncode, 2)
        self.assertEqual(self.home.cli("report", self.page, "--for", "0s").returncode, 2)
        self.assertFalse(os.path.exists(self.page))


if __name__ == "__main__":
    unittest.main()
