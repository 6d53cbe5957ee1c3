"""Which functions a hit of zcb runs: client/launcher/hot_functions.txt, by
which the released zcb is linked. Needs valgrind.

usage: hot_functions.py --bin BIN --peers PEERS --zcb ZCB    ZCB with symbols; prints the list
"""

import argparse
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))

import harness  # pylint: disable=wrong-import-position

VERSION = "1.11.22"


def executed(profile):
    """The names in a profile of callgrind, as the linker knows them."""
    names = set()
    with open(profile, encoding="utf-8") as lines:
        for line in lines:
            found = re.match(r"c?fn=\(\d+\) ([\w.$]+)(?:'\d+)?$", line)
            if found and not found[1].startswith("0x"):
                names.add(found[1])
    return sorted(names)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--bin", "--peers", "--zcb"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.become_subreaper()
    with harness.Home(on_path=f"zccache-{VERSION}") as home:
        home.start_kept_broker()
        home.write("a.c", "int a(void) { return 1; }\n")
        compile_a = [os.path.abspath(options.zcb), "gcc", "-c", "a.c", "-o", "a.o"]
        for _ in range(2):
            subprocess.run(compile_a, env=home.env, cwd=home.src, check=True)
        profile = os.path.join(home.dir, "profile")
        subprocess.run(["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={profile}",
                        *compile_a], env=home.env, cwd=home.src, check=True, stderr=subprocess.DEVNULL)
        names = executed(profile)
        # A call that went to the compiler has no reply to read.
        assert any("DecodeResponse" in name for name in names), "that was no hit"
        print("\n".join(names))


if __name__ == "__main__":
    main()
