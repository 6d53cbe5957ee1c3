"""Builds zcbroker_VERSION-REVISION_ARCHITECTURE.deb from released programs, and
libzcbroker-dev of the same name from the library for C++. Takes no network and no
root; what is in them is as old as the last commit, so the same tree gives the same
files. Called by ./dev deb."""

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
# Parts of these are in the static programs, and in the archive for others.
PROGRAM_SOURCES = ["libgrpc-dev", "libprotobuf-dev", "libabsl-dev", "libssl-dev", "libre2-dev", "libc-ares-dev", "zlib1g-dev",
             "libasio-dev", "libcli11-dev", "libspdlog-dev", "libfmt-dev", "librust-blake3-dev", "nlohmann-json3-dev",
             "libc6-dev"]
LIBRARY_SOURCES = ["librust-blake3-dev", "golang-github-gogo-googleapis-dev"]
# What programs in C++ include; and with it, all that these include.
HEADERS = ["client/connect_daemon.h", "client/framed_negotiator.h", "client/grpc_negotiator.h", "client/lease.h",
           "client/backend_sdk/managed_backend.h"]
LIBRARY_DOCUMENTS = ["docs/backend-kit.md", "docs/cpp.md"]
LIBRARY_EXAMPLES = {
    "where/CMakeLists.txt": "client/example/CMakeLists.txt",
    "where/main.cc": "client/example/main.cc",
    "echo_backend.cc": "client/backend_sdk/example/echo_backend.cc",
    "registered_echo_backend.cc": "client/backend_sdk/example/registered_echo_backend.cc",
}
# The archive is compiled against these; how much of their version another one has
# to share for it to be linked with.
LINKED = {"libabsl-dev": 1, "libgrpc++-dev": 2, "libprotobuf-dev": 2}
DESCRIPTION = """\
broker of the background daemons of compiler caches
 A compiler cache such as zccache runs a daemon for each user. zcbroker finds or
 starts the daemon of exactly the version that a client wants, one for all who
 ask at once, and starts it again when it dies. Its launcher, zcb, compiles
 through a daemon that runs, and becomes the compiler where none can serve.
 .
 Programs: zcbrokerd, the broker, one for each user; zcbroker-keeper, which
 holds its sockets; zcbroker, the command line; zcb, the compiler launcher."""
LIBRARY_DESCRIPTION = """\
broker of the background daemons of compiler caches - library
 A static library for programs in C++, with what CMake and pkg-config want to
 know.
 .
 zcbroker::client connects a program to the daemon of the version it wants: by
 the broker or, where that is missing, without. zcbroker::backend makes a daemon
 one that the broker starts, proves and ends in order."""


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


def verbs_of(text):
    listed = text.split("Commands:\n")[1].split("\n\n")[0] if "Commands:\n" in text else ""
    return re.findall(r"^  (\S+)", listed, re.MULTILINE)


def all_help(program, *verb):
    """Its --help, and those of its verbs, each under a heading."""
    text = output(program, *verb, "--help")
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


# --- The packages


def upstream_version(package):
    shown = output("dpkg-query", "--show", "--showformat", "${Version}", package)
    return re.sub(r"^\d+:|-[^-]*$", "", shown)


def linked():
    """Dependencies: not older than what it was compiled against, and not another
    release, for C++ promises nothing then."""
    found = []
    for package, places in sorted(LINKED.items()):
        version = upstream_version(package)
        numbers = [int(number) for number in version.split(".")[:places]]
        numbers[-1] += 1
        found += [f"{package} (>= {version})", f"{package} (<< {'.'.join(map(str, numbers))}~)"]
    return ", ".join(found)


def built_using(packages):
    shown = output("dpkg-query", "--show", "--showformat", "${source:Package} (= ${source:Version})\n", *packages)
    return ", ".join(sorted(set(shown.splitlines())))


def headers(generated):
    """{path: file} of HEADERS and all of ours that they include."""
    found = {}
    wanted = list(HEADERS)
    while wanted:
        path = wanted.pop()
        folder = next((folder for folder in (ROOT, generated) if os.path.exists(os.path.join(folder, path))), None)
        if path in found or (folder is None and not path.startswith(("client/", "ipc/", "proto/"))):
            continue
        found[path] = read(os.path.join(folder or ROOT, path))
        wanted += re.findall(r'^#include "(.*)"', found[path], re.MULTILINE)
    return found


def install_programs(tree, programs, version, date):
    for program in PROGRAMS:
        with open(os.path.join(programs, program), "rb") as file:
            tree.write(f"usr/bin/{program}", file.read(), 0o755)
    for unit in ("zcbroker.service", "zcbroker.socket"):
        tree.write(f"usr/lib/systemd/user/{unit}", read(f"service/deploy/systemd/{unit}"))
    for shell, path in COMPLETIONS.items():
        tree.write(path, output(os.path.join(programs, "zcbroker"), "completion", shell))
    for leaf in sorted(os.listdir(os.path.join(HERE, "man"))):
        tree.write_compressed(*manual_page(leaf, programs, version, date))
    tree.write("usr/share/doc/zcbroker/examples/policy.textproto", read("service/deploy/policy.textproto"))


def install_library(tree, library, version):
    triplet = output("dpkg-architecture", "--query", "DEB_HOST_MULTIARCH").strip()
    folder = f"usr/lib/{triplet}"
    with open(os.path.join(library, "libzcbroker.a"), "rb") as file:
        tree.write(f"{folder}/libzcbroker.a", file.read())
    for path, text in headers(os.path.join(library, "include")).items():
        tree.write(f"usr/include/zcbroker/{path}", text)
    for where, leaves in (("pkgconfig", ["zcbroker-backend.pc", "zcbroker-client.pc"]),
                          ("cmake/zcbroker", ["zcbroker-config.cmake", "zcbroker-config-version.cmake"])):
        for leaf in leaves:
            text = read(f"service/deploy/debian/{leaf}.in").replace("@VERSION@", version).replace("@TRIPLET@", triplet)
            tree.write(f"{folder}/{where}/{leaf}", text)
    for path, source in LIBRARY_EXAMPLES.items():
        tree.write(f"usr/share/doc/libzcbroker-dev/examples/{path}", read(source))


class Build:
    """What both packages share."""

    def __init__(self, revision):
        self.version = re.search(r'kVersion\[\] = "(.*)"', read("proto/zcbroker/version.h")).group(1)
        self.package_version = f"{self.version}-{revision}"
        self.architecture = output("dpkg", "--print-architecture").strip()
        self.maintainer = (f"{os.environ.get('DEBFULLNAME', 'the zcbroker authors')} "
                           f"<{os.environ.get('DEBEMAIL', 'zcbroker@example.org')}>")
        self.seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or
                           output("git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"))
        self.day = output("date", "-u", "-d", f"@{self.seconds}", "+%Y-%m-%d").strip()

    def document(self, tree, package, documents):
        folder = f"usr/share/doc/{package}"
        tree.write(f"{folder}/copyright", read("service/deploy/debian/copyright"))
        for path in documents:
            tree.write_compressed(f"{folder}/{os.path.basename(path)}", read(path))
        tree.write_compressed(f"{folder}/changelog", read("CHANGELOG.md"))
        tree.write_compressed(f"{folder}/changelog.Debian",
                              f"zcbroker ({self.package_version}) unstable; urgency=medium\n\n"
                              f"  * See changelog.gz.\n\n -- {self.maintainer}  {email.utils.formatdate(self.seconds)}\n")
        tree.write(f"usr/share/lintian/overrides/{package}", read(f"service/deploy/debian/{package}.lintian-overrides"))

    def package(self, out, name, documents, fields, install):
        """Its path; `install` puts into a tree what is in it."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            tree = Tree(folder)
            install(tree)
            self.document(tree, name, documents)
            kibibytes = sum(-(-os.path.getsize(os.path.join(folder, path)) // 1024) for path in tree.files())
            known = {"Package": name, "Version": self.package_version, "Priority": "optional",
                     "Architecture": self.architecture, "Maintainer": self.maintainer, "Installed-Size": kibibytes}
            if name != "zcbroker":
                known["Source"] = "zcbroker"
            sums = output("sh", "-c", 'cd "$0" && md5sum "$@"', folder, *tree.files())
            tree.write("DEBIAN/control", "".join(f"{field}: {value}\n" for field, value in {**known, **fields}.items()))
            tree.write("DEBIAN/md5sums", sums)
            path = os.path.join(out, f"{name}_{self.package_version}_{self.architecture}.deb")
            subprocess.run(["dpkg-deb", "--root-owner-group", "-z1", "--build", folder, path], check=True,
                           stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": str(self.seconds)})
        return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of released programs (./dev build)")
    parser.add_argument("--library", required=True, help="the folder of libzcbroker.a, and of the headers made for it")
    parser.add_argument("--out", required=True, help="the folder for the packages")
    parser.add_argument("--revision", type=int, default=1, help="of the packages, where the version is the same")
    options = parser.parse_args()
    programs = os.path.abspath(options.bin)
    library = os.path.abspath(options.library)
    build = Build(options.revision)
    os.makedirs(options.out, exist_ok=True)
    print(build.package(
        options.out, "zcbroker", DOCUMENTS,
        {"Section": "devel", "Built-Using": built_using(PROGRAM_SOURCES), "Enhances": "ccache, gcc, clang",
         "Description": DESCRIPTION},
        lambda tree: install_programs(tree, programs, build.version, build.day)))
    print(build.package(
        options.out, "libzcbroker-dev", LIBRARY_DOCUMENTS,
        {"Section": "libdevel", "Depends": linked(), "Suggests": "zcbroker, cmake",
         "Built-Using": built_using(LIBRARY_SOURCES), "Description": LIBRARY_DESCRIPTION},
        lambda tree: install_library(tree, library, build.version)))


if __name__ == "__main__":
    os.umask(0o022)
    main()
