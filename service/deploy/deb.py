"""Builds zcbroker_VERSION-REVISION_ARCHITECTURE.deb from released programs. Takes
no network and no root; what is in it is as old as the last commit, so the same
tree gives the same file. Called by ./dev deb."""

import argparse
import email.utils
import gzip
import os
import re
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
PROGRAMS = ["zcb", "zcbroker", "zcbroker-keeper", "zcbrokerd"]
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/zcbroker",
    "zsh": "usr/share/zsh/vendor-completions/_zcbroker",
    "fish": "usr/share/fish/vendor_completions.d/zcbroker.fish",
}
DOCUMENTS = ["README.md", "docs/cli.md", "docs/definitions.md", "docs/operations.md", "docs/policy.md",
             "docs/protocol.md", "docs/threat-model.md", "docs/using-it.md", "docs/zcb.md"]
# Parts of these are in the static programs.
LIBRARIES = ["libgrpc-dev", "libprotobuf-dev", "libabsl-dev", "libssl-dev", "libre2-dev", "libc-ares-dev", "zlib1g-dev",
             "libasio-dev", "libcli11-dev", "libspdlog-dev", "libfmt-dev", "librust-blake3-dev", "nlohmann-json3-dev",
             "libc6-dev"]
DESCRIPTION = """\
broker of the background daemons of compiler caches
 A compiler cache such as zccache runs a daemon for each user. zcbroker finds or
 starts the daemon of exactly the version that a client wants, one for all who
 ask at once, and starts it again when it dies. Its launcher, zcb, compiles
 through a daemon that runs, and becomes the compiler where none can serve.
 .
 Programs: zcbrokerd, the broker, one for each user; zcbroker-keeper, which
 holds its sockets; zcbroker, the command line; zcb, the compiler launcher."""


def output(*words):
    return subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


class Tree:
    """What is installed."""

    def __init__(self, path):
        self.path = path

    def write(self, path, content, mode=0o644):
        path = os.path.join(self.path, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        os.chmod(path, mode)

    def write_compressed(self, path, text):
        self.write(path + ".gz", gzip.compress(text.encode(), 9, mtime=0))

    def files(self):
        found = []
        for folder, folders, files in os.walk(self.path):
            folders.sort()
            found += [os.path.relpath(os.path.join(folder, file), self.path) for file in sorted(files)]
        return [path for path in found if not path.startswith("DEBIAN/")]


# --- Manual pages


def roff(text):
    """Plain text, to be shown as it is."""
    lines = [line.replace("\\", "\\e").replace("-", "\\-") for line in text.rstrip().split("\n")]
    return "\n".join([".nf", *("\\&" + line if line[:1] in (".", "'") else line for line in lines), ".fi"])


def help_of(program, *verb):
    return output(program, *verb, "--help").replace(program, os.path.basename(program))


def verbs_of(text):
    listed = text.split("Subcommands:\n")[1].split("\n\n")[0] if "Subcommands:\n" in text else ""
    return re.findall(r"^  (\S+)", listed, re.MULTILINE)


def all_help(program, *verb):
    """Its --help, and those of its verbs, each under a heading."""
    text = help_of(program, *verb)
    parts = [roff(text)]
    for name in verbs_of(text):
        deeper = [*verb, name]
        parts += [".SS " + " ".join(deeper), all_help(program, *deeper)]
    return "\n".join(parts)


def manual_page(leaf, programs, version, date):
    name, section, _ = leaf.rsplit(".", 2)
    body = read(os.path.join("service/deploy/man", leaf))
    body = re.sub(r"^@(\S+)@$", lambda match: all_help(os.path.join(programs, match.group(1))), body, flags=re.MULTILINE)
    return f"usr/share/man/man{section}/{name}.{section}", f'.TH {name.upper()} {section} {date} "zcbroker {version}"\n{body}'


# --- The package


def built_using():
    shown = output("dpkg-query", "--show", "--showformat", "${source:Package} (= ${source:Version})\n", *LIBRARIES)
    return ", ".join(sorted(set(shown.splitlines())))


def install(tree, programs, version, package_version, seconds, maintainer):
    for program in PROGRAMS:
        with open(os.path.join(programs, program), "rb") as file:
            tree.write(f"usr/bin/{program}", file.read(), 0o755)
    for unit in ("zcbroker.service", "zcbroker.socket"):
        tree.write(f"usr/lib/systemd/user/{unit}", read(f"service/deploy/systemd/{unit}"))
    for shell, path in COMPLETIONS.items():
        tree.write(path, output(os.path.join(programs, "zcbroker"), "completion", shell))
    date = email.utils.formatdate(seconds)
    day = output("date", "-u", "-d", f"@{seconds}", "+%Y-%m-%d").strip()
    for leaf in sorted(os.listdir(os.path.join(HERE, "man"))):
        tree.write_compressed(*manual_page(leaf, programs, version, day))
    documents = "usr/share/doc/zcbroker"
    tree.write(f"{documents}/copyright", read("service/deploy/debian/copyright"))
    tree.write(f"{documents}/examples/policy.textproto", read("service/deploy/policy.textproto"))
    for path in DOCUMENTS:
        tree.write_compressed(f"{documents}/{os.path.basename(path)}", read(path))
    tree.write_compressed(f"{documents}/changelog", read("CHANGELOG.md"))
    tree.write_compressed(f"{documents}/changelog.Debian",
                          f"zcbroker ({package_version}) unstable; urgency=medium\n\n"
                          f"  * See changelog.gz.\n\n -- {maintainer}  {date}\n")
    tree.write("usr/share/lintian/overrides/zcbroker", read("service/deploy/debian/lintian-overrides"))


def control(tree, package_version, architecture, maintainer):
    kibibytes = sum(-(-os.path.getsize(os.path.join(tree.path, path)) // 1024) for path in tree.files())
    tree.write("DEBIAN/control", "".join([
        "Package: zcbroker\n", f"Version: {package_version}\n", "Section: devel\n", "Priority: optional\n",
        f"Architecture: {architecture}\n", f"Maintainer: {maintainer}\n", f"Installed-Size: {kibibytes}\n",
        f"Built-Using: {built_using()}\n", "Enhances: ccache, gcc, clang\n", f"Description: {DESCRIPTION}\n"]))
    sums = output("sh", "-c", 'cd "$0" && md5sum "$@"', tree.path, *tree.files())
    tree.write("DEBIAN/md5sums", sums)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of released programs (./dev build)")
    parser.add_argument("--out", required=True, help="the folder for the package")
    parser.add_argument("--revision", type=int, default=1, help="of the package, where the version is the same")
    options = parser.parse_args()
    programs = os.path.abspath(options.bin)
    version = re.search(r'kVersion\[\] = "(.*)"', read("proto/zcbroker/version.h")).group(1)
    package_version = f"{version}-{options.revision}"
    architecture = output("dpkg", "--print-architecture").strip()
    maintainer = (f"{os.environ.get('DEBFULLNAME', 'the zcbroker authors')} "
                  f"<{os.environ.get('DEBEMAIL', 'zcbroker@example.org')}>")
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"))
    os.makedirs(options.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        tree = Tree(folder)
        install(tree, programs, version, package_version, seconds, maintainer)
        control(tree, package_version, architecture, maintainer)
        path = os.path.join(options.out, f"zcbroker_{package_version}_{architecture}.deb")
        subprocess.run(["dpkg-deb", "--root-owner-group", "-z1", "--build", folder, path], check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": str(seconds)})
    print(path)


if __name__ == "__main__":
    os.umask(0o022)
    main()
