"""Counts the test cases of a Bazel run, from its build event file.

Prints "PASSED FAILED". A test target that wrote no report counts as one case.
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def cases(path):
    root = ElementTree.parse(path).getroot()
    suites = root.iter("testsuite")
    total = failed = 0
    for suite in suites:
        for case in suite.findall("testcase"):
            if case.get("status") == "notrun":
                continue
            total += 1
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
    return total, failed


def main():
    passed = failed = 0
    with open(sys.argv[1], encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            result = event.get("testResult")
            if result is None:
                continue
            ok = result.get("status") == "PASSED"
            total = bad = 0
            for output in result.get("testActionOutput", []):
                if output.get("name") == "test.xml":
                    uri = urllib.parse.urlparse(output["uri"])
                    total, bad = cases(urllib.parse.unquote(uri.path))
            if total == 0:
                total = 1
            if not ok and bad == 0:
                bad = 1
            passed += total - bad
            failed += bad
    print(passed, failed)


if __name__ == "__main__":
    main()
