"""Repositories that wrap the C++ libraries installed on this machine.

They bear the names and labels of the upstream repositories, so a BUILD file
does not show whether a library came from the system or was built from source.
Their headers lie in /usr/include, where the compiler looks by itself.
Link their archives rather than their .so with --define=system_libs=static.
"""

_ROOT_BUILD = """
package(default_visibility = ["//visibility:public"])

config_setting(
    name = "link_static",
    values = {"define": "system_libs=static"},
)
"""

_CC_LIBRARY = """
cc_library(
    name = "%s",
    # In the key of all that is compiled against it: an upgrade recompiles.
    defines = ["SYSTEM_%s=%s"],
    linkopts = select({
        "//:link_static": %s,
        "//conditions:default": %s,
    }),
)
"""

def _system_repo_impl(ctx):
    hint = "\nInstall it with: apt-get install " + " ".join(ctx.attr.debian)
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    for path, source in ctx.attr.links.items():
        target = source if source.startswith("/") else ctx.which(source)
        if not target or not ctx.path(target).exists:
            fail("There is no %s here.%s" % (source, hint))
        ctx.symlink(target, path)

    version = ctx.execute(["dpkg-query", "-W", "-f=${Version}", ctx.attr.debian[0]])
    version = version.stdout if version.return_code == 0 else "unknown"

    # What -l can name here: a library, or a family such as absl_*.
    probe = "lib%s.a" % ctx.attr.probe
    found = ctx.execute(["gcc", "-print-file-name=" + probe]).stdout.strip()
    if found == probe:
        fail("There is no %s here.%s" % (probe, hint))
    files = {f.basename: None for f in ctx.path(found).dirname.readdir()}
    names = []
    for name in ctx.attr.libs:
        if name.endswith("*"):
            prefix = "lib" + name[:-1]
            names += sorted([
                f[len("lib"):-len(".a")]
                for f in files
                if f.startswith(prefix) and f.endswith(".a")
            ])
        else:
            names.append(name)

    # Bazel's toolchain links with -no-as-needed: each start of a binary would
    # then load all of gRPC's 60 libraries.
    shared = ["-Wl,--push-state,--as-needed"] + [
        "-l" + n
        for n in names
        if "lib%s.so" % n in files or "lib%s.a" % n in files
    ] + ["-Wl,--pop-state"]
    static = ["-Wl,--start-group"] + [
        "-l:lib%s.a" % n if "lib%s.a" % n in files else "-l" + n
        for n in names
    ] + ["-Wl,--end-group"]

    packages = {"": _ROOT_BUILD + ctx.attr.build}
    for label in ctx.attr.targets:
        package, _, name = label.rpartition(":")
        if package not in packages:
            packages[package] = "package(default_visibility = [\"//visibility:public\"])\n"
        packages[package] += _CC_LIBRARY % (name, ctx.name.upper(), version, static, shared)
    for package, text in packages.items():
        ctx.file(package + "/BUILD.bazel" if package else "BUILD.bazel", text)

system_repo = repository_rule(
    doc = "Libraries that Debian packages installed, under upstream's labels.",
    implementation = _system_repo_impl,
    local = True,  # looked at anew whenever a Bazel server starts
    configure = True,
    environ = ["PATH"],
    attrs = {
        "build": attr.string(doc = "more for the root BUILD file"),
        "debian": attr.string_list(doc = "the packages to install"),
        "libs": attr.string_list(doc = "what -l names, each before what it uses"),
        "links": attr.string_dict(doc = "path here to a path or a program there"),
        "probe": attr.string(mandatory = True, doc = "the lib*.a that shows where"),
        "targets": attr.string_list(doc = "labels, each to link all of libs"),
    },
)

def _system_files_impl(ctx):
    hint = "\nInstall it with: ./dev setup  (or: apt-get install " + " ".join(ctx.attr.debian) + ")"
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    for path, source in ctx.attr.links.items():
        if "*" in source:
            # One wildcard component: a version in a directory's name.
            head, _, tail = source.partition("*")
            parent, _, prefix = head.rpartition("/")
            found = [
                str(entry) + tail
                for entry in ctx.path(parent).readdir()
                if entry.basename.startswith(prefix)
            ]
            source = sorted(found)[-1] if found else source
        if not ctx.path(source).exists:
            fail("There is no %s here.%s" % (source, hint))
        ctx.symlink(source, path)
    version = ctx.execute(["dpkg-query", "-W", "-f=${Version}", ctx.attr.debian[0]])
    version = version.stdout if version.return_code == 0 else "unknown"
    ctx.file("BUILD.bazel", ctx.attr.build.replace("%VERSION%", "SYSTEM_%s=%s" % (ctx.name.upper(), version)))

system_files = repository_rule(
    doc = "Headers, sources or protos that Debian packages installed: links and a BUILD text.",
    implementation = _system_files_impl,
    local = True,
    configure = True,
    environ = ["PATH"],
    attrs = {
        "build": attr.string(mandatory = True, doc = "the BUILD file; %VERSION% is a define"),
        "debian": attr.string_list(mandatory = True, doc = "the packages to install"),
        "links": attr.string_dict(doc = "path here to a path there; one * may stand in it"),
    },
)

# The BLAKE3 sources that x86-64 and every other machine need.
_BLAKE3 = "/usr/share/cargo/registry/blake3-*/c/"
_BLAKE3_FILES = [
    "blake3.c",
    "blake3.h",
    "blake3_dispatch.c",
    "blake3_impl.h",
    "blake3_portable.c",
    "blake3_sse2_x86-64_unix.S",
    "blake3_sse41_x86-64_unix.S",
    "blake3_avx2_x86-64_unix.S",
    "blake3_avx512_x86-64_unix.S",
]

_PROTOS = ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"]

def system_repos():
    """Defines the repositories of the system's libraries."""
    system_repo(
        name = "com_google_absl",
        debian = ["libabsl-dev"],
        probe = "absl_base",
        libs = ["absl_*"],
        targets = [
            "absl/base:core_headers",
            "absl/numeric:int128",
            "absl/random:random",
            "absl/cleanup:cleanup",
            "absl/container:flat_hash_map",
            "absl/container:flat_hash_set",
            "absl/flags:flag",
            "absl/flags:parse",
            "absl/flags:usage",
            "absl/functional:any_invocable",
            "absl/status:status",
            "absl/status:statusor",
            "absl/strings:cord",
            "absl/strings:str_format",
            "absl/strings:strings",
            "absl/synchronization:synchronization",
            "absl/time:time",
            "absl/types:optional",
            "absl/types:span",
        ],
    )
    system_repo(
        name = "com_google_protobuf",
        debian = ["libprotobuf-dev", "protobuf-compiler"],
        probe = "protobuf",
        libs = ["protobuf", "z"],
        targets = [":protobuf"],
        links = dict([("protoc", "protoc")] + [
            ("google/protobuf/%s.proto" % p, "/usr/include/google/protobuf/%s.proto" % p)
            for p in _PROTOS
        ]),
        build = """
exports_files(["protoc"])

proto_lang_toolchain(
    name = "cc_toolchain",
    blacklisted_protos = %s,
    command_line = "--cpp_out=$(OUT)",
    runtime = ":protobuf",
)
""" % [":%s_proto" % p for p in _PROTOS] + "".join(["""
proto_library(
    name = "{0}_proto",
    srcs = ["google/protobuf/{0}.proto"],
)
""".format(p) for p in _PROTOS]),
    )
    system_repo(
        name = "com_github_grpc_grpc",
        debian = ["libgrpc++-dev", "libgrpc-dev", "protobuf-compiler-grpc"],
        probe = "grpc++",
        libs = [
            "grpc++_reflection",
            "grpc++",
            "grpc",
            "gpr",
            "upb",
            "address_sorting",
            "re2",
            "cares",
            "ssl",
            "crypto",
            "z",
            "protobuf",
            "absl_*",
        ],
        targets = [":grpc++", ":grpc++_reflection"],
        links = {"grpc_cpp_plugin": "grpc_cpp_plugin"},
        build = "exports_files([\"grpc_cpp_plugin\"])\n",
    )
    system_repo(
        name = "com_google_googletest",
        debian = ["libgtest-dev", "libgmock-dev"],
        probe = "gtest",
        libs = ["gmock", "gtest", "pthread"],
        targets = [":gtest"],
        build = """
cc_library(
    name = "gtest_main",
    linkopts = ["-lgmock_main"],
    deps = [":gtest"],
)
""",
    )
    system_repo(
        name = "com_github_google_benchmark",
        debian = ["libbenchmark-dev"],
        probe = "benchmark_main",
        libs = ["benchmark", "pthread"],
        targets = [":benchmark"],
        build = """
cc_library(
    name = "benchmark_main",
    linkopts = ["-lbenchmark_main"],
    deps = [":benchmark"],
)
""",
    )
    # Header-only packages are found in /usr/include; the link only shows that
    # they are there, under a path that no #include names.
    system_files(
        name = "asio",
        debian = ["libasio-dev"],
        links = {"present/asio.hpp": "/usr/include/asio.hpp"},
        build = """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "asio",
    defines = ["ASIO_STANDALONE", "ASIO_NO_DEPRECATED", "%VERSION%"],
    linkopts = ["-lpthread"],
)
""",
    )
    system_files(
        name = "cli11",
        debian = ["libcli11-dev"],
        links = {"present/CLI.hpp": "/usr/include/CLI/CLI.hpp"},
        build = """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "cli11",
    defines = ["%VERSION%"],
)
""",
    )
    system_files(
        name = "com_github_nlohmann_json",
        debian = ["nlohmann-json3-dev"],
        links = {"present/json.hpp": "/usr/include/nlohmann/json.hpp"},
        build = """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "json",
    defines = ["%VERSION%"],
)
""",
    )
    system_files(
        name = "com_github_gabime_spdlog",
        debian = ["libspdlog-dev", "libfmt-dev"],
        links = {"present/spdlog.h": "/usr/include/spdlog/spdlog.h"},
        build = """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "spdlog",
    defines = ["SPDLOG_HEADER_ONLY", "SPDLOG_FMT_EXTERNAL", "FMT_HEADER_ONLY", "%VERSION%"],
)
""",
    )
    system_files(
        name = "blake3",
        debian = ["librust-blake3-dev"],
        links = {f: _BLAKE3 + f for f in _BLAKE3_FILES},
        build = """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "blake3",
    srcs = [
        "blake3.c",
        "blake3_dispatch.c",
        "blake3_impl.h",
        "blake3_portable.c",
    ] + select({
        "@platforms//cpu:x86_64": [
            "blake3_avx2_x86-64_unix.S",
            "blake3_avx512_x86-64_unix.S",
            "blake3_sse2_x86-64_unix.S",
            "blake3_sse41_x86-64_unix.S",
        ],
        "//conditions:default": [],
    }),
    hdrs = ["blake3.h"],
    copts = ["-w"],
    defines = ["%VERSION%"],
    includes = ["."],
)
""",
    )
    system_files(
        name = "com_google_googleapis",
        debian = ["golang-github-gogo-googleapis-dev"],
        links = {
            "google/rpc/error_details.proto": "/usr/share/gocode/src/github.com/gogo/googleapis/google/rpc/error_details.proto",
            "google/rpc/status.proto": "/usr/share/gocode/src/github.com/gogo/googleapis/google/rpc/status.proto",
        },
        build = """
package(default_visibility = ["//visibility:public"])

proto_library(
    name = "status_proto",
    srcs = ["google/rpc/status.proto"],
    deps = ["@com_google_protobuf//:any_proto"],
)

cc_proto_library(
    name = "status_cc_proto",
    deps = [":status_proto"],
)

proto_library(
    name = "error_details_proto",
    srcs = ["google/rpc/error_details.proto"],
    deps = ["@com_google_protobuf//:duration_proto"],
)

cc_proto_library(
    name = "error_details_cc_proto",
    deps = [":error_details_proto"],
)
""",
    )
