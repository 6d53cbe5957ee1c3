"""Runs our programs against the real ones. Called by ./dev test; ends with
"cases: N passed, N failed"."""

import argparse
import os
import signal
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDERS = [HERE, os.path.join(HERE, "..", "chaos")]
sys.path[:0] = FOLDERS

import harness  # pylint: disable=wrong-import-position

# What is run once more against sanitized programs: real traffic of every kind,
# without the ten rounds.
SANITIZED = ["test_lanes", "test_outside", "test_direct", "test_herd.Sanitized"]


class Result(unittest.TextTestResult):
    """Counts subtests as cases."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def every_test():
    return sorted(name.removesuffix(".py") for folder in FOLDERS for name in os.listdir(folder)
                  if name.startswith("test_") and name.endswith(".py"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of built programs (bazel-bin)")
    parser.add_argument("--peers", required=True, help="the folder of real programs (./dev peers)")
    parser.add_argument("--zcb", help="the launcher as it is released; its start differs")
    parser.add_argument("--sanitized", action="store_true", help="the short list, for slow programs")
    parser.add_argument("only", nargs="*", help="test names, for example test_herd.Herd.test_24")
    options = parser.parse_args()
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.Options.zcb = options.zcb
    harness.Options.sanitized = options.sanitized
    harness.become_subreaper()
    # Ignored where a shell started us in the background; ours send them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    # nohup ignores it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    names = options.only or (SANITIZED if options.sanitized else every_test())
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=2).run(suite)
    bad = len(result.failures) + len(result.errors)
    print(f"cases: {result.passed} passed, {bad} failed")
    return 0 if bad == 0 and result.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
