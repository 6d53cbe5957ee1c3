"""Which parts of the tree may include which, checked on what the compiler
really read: its dependency files. ARCHITECTURE.md draws the same.

usage: layering.py BAZEL_BIN      prints every breach; exits with 1 if any
       layering.py --self-test    shows that breaches are found
"""

import os
import re
import subprocess
import sys

GRPC = r"/usr/include/(grpc|grpcpp|grpc\+\+)/"
ASIO = r"/usr/include/asio"
SPDLOG = r"/usr/include/spdlog/"
SYSTEM_CALLS = r"/usr/include/(.*/)?(sys/(socket|un|epoll|inotify|wait)|spawn|poll)\.h$"

# Objects of a package, what they must not have read, and why.
RULES = [
    (r"^proto/", r"^(ipc|service|client|tests)/", "proto is a leaf"),
    (r"^ipc/", r"^(service|client)/", "ipc knows neither service nor client"),
    (r"^ipc/", f"{GRPC}|{ASIO}|{SPDLOG}", "ipc knows no RPC framework, event loop or logger"),
    (r"^client/", r"^service/", "client and service never meet"),
    (r"^service/", r"^client/", "client and service never meet"),
    (r"^service/core/", f"{GRPC}|{ASIO}|{SPDLOG}", "the rules know no framework"),
    (r"^service/core/(?!.*_test)", SYSTEM_CALLS, "the rules make no system call"),
    (r"^service/core/", r"^service/(rpc|framed|host)/", "adapters depend on the rules, not the reverse"),
    (r"^service/framed/", f"{GRPC}|{ASIO}", "the framed adapter does no I/O"),
    (r"^service/host/", GRPC, "only service/rpc knows gRPC"),
    (r"^service/rpc/", ASIO, "only service/host knows the loop"),
    (r"^client/_objs/(connect_daemon|daemon_connection|framed_negotiator|fallback|fallback_records|broker_socket|named_route|route_memory)/", GRPC,
     "the client knows gRPC in one negotiator only"),
    (r"^client/backend_sdk/", GRPC, "backends need no gRPC"),
    (r"^client/backend_sdk/_objs/", r"^client/(?!backend_sdk/)", "the backend kit knows no client, whose lease links gRPC"),
    (r"^client/launcher/", f"{GRPC}|{ASIO}|{SPDLOG}|/usr/include/CLI/", "the launcher starts like a plain C program"),
    (r"^service/keeper/", f"{GRPC}|{ASIO}|{SPDLOG}", "the keeper knows no framework"),
]

# Operating system headers in ipc/ only under platform/: by the source text,
# since the C++ library reads many of them itself.
SYSTEM_INCLUDE = re.compile(
    r"^\s*#include <((sys|arpa|netinet|linux)/[^>]+|unistd\.h|fcntl\.h|poll\.h|spawn\.h|signal\.h|dirent\.h)>", re.M)


def breaches(dependencies):
    """{object: [what was read]} -> list of texts."""
    found = []
    for name, files in sorted(dependencies.items()):
        for objects, forbidden, why in RULES:
            if not re.search(objects, name):
                continue
            for file in files:
                if re.search(forbidden, file):
                    found.append(f"{name} read {file}: {why}")
    return found


def read_dependencies(bazel_bin):
    dependencies = {}
    for folder, _, files in os.walk(bazel_bin, followlinks=False):
        for file in files:
            if not file.endswith(".d"):
                continue
            path = os.path.join(folder, file)
            name = os.path.relpath(path, bazel_bin)
            if name.startswith("external/"):
                continue
            with open(path, encoding="utf-8") as text:
                words = text.read().replace("\\\n", " ").split()
            # bazel-out/<config>/bin/x is the generated x.
            dependencies[name] = [re.sub(r"^bazel-out/[^/]+/bin/", "", word) for word in words[1:]]
    return dependencies


def system_includes():
    files = subprocess.run(["git", "ls-files", "ipc/*.h", "ipc/*.cc"], stdout=subprocess.PIPE, text=True,
                           check=True).stdout.split()
    found = []
    for file in files:
        if file.startswith(("ipc/platform/", "ipc/testing/")) or file.endswith("_test.cc"):
            continue
        with open(file, encoding="utf-8") as text:
            for match in SYSTEM_INCLUDE.finditer(text.read()):
                found.append(f"{file} includes <{match.group(1)}>: operating system headers belong in ipc/platform")
    return found


def self_test():
    planted = {
        "ipc/_objs/socket/socket.d": ["service/core/machine.h"],
        "ipc/_objs/listener/listener.d": ["/usr/include/grpcpp/grpcpp.h"],
        "service/core/_objs/machine/machine.d": ["/usr/include/x86_64-linux-gnu/sys/socket.h"],
        "service/host/_objs/host/host.d": ["client/connect_daemon.h"],
        "service/rpc/_objs/services/services.d": ["/usr/include/asio/io_context.hpp"],
        "client/_objs/connect_daemon/connect_daemon.d": ["/usr/include/grpc/grpc.h"],
        "proto/zcbroker/v1/_objs/refusals/refusals.d": ["ipc/names.h"],
        "client/launcher/_objs/launcher/launcher.d": ["/usr/include/grpcpp/grpcpp.h"],
        "client/backend_sdk/_objs/managed_backend/managed_backend.d": ["client/lease.h"],
        "client/backend_sdk/_objs/own_identity/own_identity.d": ["service/host/spawn.h"],
        "client/backend_sdk/example/_objs/echo_backend/echo_backend.d": ["/usr/include/grpcpp/grpcpp.h"],
    }
    missed = [name for name, files in planted.items() if not breaches({name: files})]
    allowed = {
        "service/core/_objs/machine/machine.d": ["ipc/names.h", "proto/zcbroker/v1/broker.pb.h"],
        "service/rpc/_objs/services/services.d": ["/usr/include/grpcpp/grpcpp.h", "service/core/machine.h"],
        "client/_objs/grpc_negotiator/grpc_negotiator.d": ["/usr/include/grpcpp/grpcpp.h"],
        "client/backend_sdk/example/_objs/registered_echo_backend/registered_echo_backend.d": ["client/lease.h"],
    }
    wrong = breaches(allowed)
    for text in missed + wrong:
        print(f"self-test: {text}")
    return not missed and not wrong


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 0 if self_test() else 1
    dependencies = read_dependencies(sys.argv[1])
    found = breaches(dependencies) + system_includes()
    for text in found:
        print(text)
    print(f"layering: {len(dependencies)} objects, {len(found)} breaches")
    # Too few objects mean that nothing was looked at.
    return 1 if found or len(dependencies) < 50 else 0


if __name__ == "__main__":
    sys.exit(main())
