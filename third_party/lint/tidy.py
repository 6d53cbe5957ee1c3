#!/usr/bin/env python3
"""Runs clang-tidy over the sources of the tree, two at a time.

A file that passed is not looked at again until its preprocessed text, the
checks or the flags change; the results are kept in --cache. Reads
compile_commands.json (third_party/lint/compile_commands.py).
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys

TIDY = "clang-tidy-14"
CLANG = "clang++-14"


def own(entry):
    return entry["file"].endswith(".cc") and not entry["file"].startswith(("bazel-out/", "external/"))


def arguments(entry):
    """The command without its compiler, outputs and inputs."""
    words = entry["arguments"][1:]
    kept = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("-o", "-c", "-MF"):
            skip = True
        elif word not in ("-MD",):
            kept.append(word)
    return kept


def look_at(entry, cache, config):
    flags = arguments(entry)
    text = subprocess.run(
        [CLANG, *flags, "-w", "-E", "-P", entry["file"]], cwd=entry["directory"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if text.returncode != 0:
        return entry["file"], text.stderr.decode(errors="replace")
    key = hashlib.sha256(config + json.dumps(flags).encode() + text.stdout).hexdigest()
    seen = os.path.join(cache, key)
    if os.path.exists(seen):
        return entry["file"], ""
    done = subprocess.run(
        [TIDY, "--quiet", "--warnings-as-errors=*", entry["file"], "--", *flags],
        cwd=entry["directory"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        return entry["file"], done.stdout.decode(errors="replace")
    with open(seen, "w", encoding="utf-8"):
        pass
    return entry["file"], ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True)
    options = parser.parse_args()
    os.makedirs(options.cache, exist_ok=True)
    with open("compile_commands.json", encoding="utf-8") as commands:
        entries = [entry for entry in json.load(commands) if own(entry)]
    with open(".clang-tidy", "rb") as config_file:
        config = config_file.read()
    config += subprocess.run([TIDY, "--version"], stdout=subprocess.PIPE, check=True).stdout
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = [pool.submit(look_at, entry, options.cache, config) for entry in entries]
        for count, look in enumerate(concurrent.futures.as_completed(looks), 1):
            name, report = look.result()
            if report:
                bad += 1
                print(f"{name}:\n{report}")
            if count % 20 == 0:
                print(f"clang-tidy: {count} of {len(entries)} files", file=sys.stderr)
    print(f"clang-tidy: {len(entries)} files, {bad} with findings", file=sys.stderr)
    return 1 if bad or not entries else 0


if __name__ == "__main__":
    sys.exit(main())
