"""Runs our programs against the real ones. Called by ./dev test; ends with
"cases: N passed, N failed"."""

import argparse
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of built programs (bazel-bin)")
    parser.add_argument("--peers", required=True, help="the folder of real programs (./dev peers)")
    parser.add_argument("--sanitized", action="store_true", help="the short list, for slow programs")
    parser.add_argument("only", nargs="*", help="test names, for example test_herd.Herd.test_24")
    options = parser.parse_args()
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.Options.sanitized = options.sanitized
    harness.become_subreaper()
    names = options.only or (SANITIZED if options.sanitized else
                             ["test_herd.Herd", "test_lanes", "test_direct", "test_versions",
                              "test_outside", "test_worlds"])
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=2).run(suite)
    bad = len(result.failures) + len(result.errors)
    print(f"cases: {result.passed} passed, {bad} failed")
    return 0 if bad == 0 and result.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
