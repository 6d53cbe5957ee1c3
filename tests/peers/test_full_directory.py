"""A runtime directory without room while a backend starts: what could not be
written is written when there is room, or the next broker knows nothing of it."""

import ctypes
import os
import signal
import unittest

from harness import Home, program, wait_until

MNT_DETACH = 2
PAGE = 4096


class FullDirectory(unittest.TestCase):
    def mount_small(self, path):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"zcbroker-full", path.encode(), b"tmpfs", 0, f"size=128k,mode=0700,uid={os.getuid()}".encode()) != 0:
            self.skipTest("no tmpfs may be mounted")
        self.addCleanup(libc.umount2, path.encode(), MNT_DETACH)

    def fill(self, path, left):
        """All but `left` pages. A page more or less of the file is a page of the file system."""
        with open(path, "wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(PAGE))
            except OSError:
                size = os.fstat(out.fileno()).st_size
            os.truncate(path, size // PAGE * PAGE - left * PAGE)

    def test_the_next_broker_goes_on_with_what_was_started_meanwhile(self):
        home = Home()
        self.addCleanup(home.__exit__)
        self.mount_small(home.runtime)
        home.write_definition("demo", "1.0.0", program("client/backend_sdk/reference/zcb-reference-backend"),
                              ["--endpoint", "{endpoint}"])
        home.start_kept_broker()
        self.assertEqual(home.cli("start", "demo", "1.0.0").returncode, 0)
        self.assertEqual(home.cli("stop", "demo", "1.0.0").returncode, 0)
        filler = os.path.join(home.runtime, "filler")
        self.fill(filler, left=1)  # for the intent
        self.assertEqual(home.cli("start", "demo", "1.0.0").returncode, 0)
        pid = home.cli_json("status")["backends"][0]["route"]["pid"]
        self.assertIn("no journal: ", home.broker_log())
        os.remove(filler)
        route = os.path.join(home.runtime, "zcbroker", "routes", "demo", "1.0.0.info")
        wait_until("the route info, which is written last", lambda: os.path.exists(route), 20)
        before = home.kept_broker()
        os.kill(before, signal.SIGKILL)
        wait_until("the next broker", lambda: home.kept_broker() not in (before, None), 20)
        wait_until("it to know the backend", lambda: [
            backend["route"]["pid"] for backend in home.cli_json("status").get("backends", [])
            if backend["state"] == "BACKEND_STATE_READY"] == [pid], 20)


if __name__ == "__main__":
    unittest.main()
