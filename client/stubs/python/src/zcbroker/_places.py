"""Where things are: the runtime directory, named routes and their infos, and
which world the caller lives in. docs/protocol.md has the rules."""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Mapping, NamedTuple, Optional

import blake3
from google.protobuf.message import DecodeError

from zcbroker import _sockets
from zcbroker.errors import BrokerError, FallbackReason, RouteInfoInvalid
from zcbroker.v1 import broker_pb2, launcher_pb2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO must not hold us up.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAX_STEM_BYTES = 40
_MAX_INFO_BYTES = 64 * 1024
_SERVICE = re.compile(r"[a-z0-9-]{1,64}")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?")
_WHITE = " \t\n\v\f\r"


# --- Runtime directory


def _open_private(path: str, parent: Optional[int] = None) -> int:
    fd = os.open(path, _DIRECTORY, dir_fd=parent)
    info = os.fstat(fd)
    if info.st_uid != os.geteuid() or info.st_mode & 0o777 != 0o700:
        os.close(fd)
        raise PermissionError(errno.EPERM, "must belong to you and have mode 0700", path)
    return fd


def _open_base(environ: Mapping[str, str]) -> tuple[str, int]:
    xdg = environ.get("XDG_RUNTIME_DIR", "")
    candidates = [xdg.rstrip("/") or "/"] if xdg.startswith("/") else []
    candidates.append(f"/run/user/{os.geteuid()}")
    for path in candidates:
        try:
            return path, _open_private(path)
        except OSError:
            continue
    path = f"/tmp/zcbroker-{os.geteuid()}"
    return path, _open_private(path)


class RuntimeDir:
    """The broker's directory, held open: what was checked is what is used."""

    def __init__(self, path: str, fd: int):
        self.path = path
        self._fd = fd

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> RuntimeDir:
        """BrokerError where there is none that may be used."""
        try:
            base, parent = _open_base(environ)
            try:
                return cls(f"{base.rstrip('/')}/zcbroker", _open_private("zcbroker", parent))
            finally:
                os.close(parent)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = FallbackReason.BROKER_MISSING if missing else FallbackReason.BROKER_UNREACHABLE
            raise BrokerError(reason, f"no runtime directory: {error}") from error

    def __enter__(self) -> RuntimeDir:
        return self

    def __exit__(self, *_) -> None:
        os.close(self._fd)

    def below(self, *names: str) -> RuntimeDir:
        """A directory in it, each of the way checked. OSError."""
        fd = os.dup(self._fd)
        for name in names:
            parent = fd
            try:
                fd = _open_private(name, parent)
            finally:
                os.close(parent)
        return RuntimeDir("/".join([self.path, *names]), fd)

    def read_file(self, leaf: str, limit: int) -> bytes:
        """The content of a file that is only ours to write. OSError."""
        with os.fdopen(os.open(leaf, _FILE, dir_fd=self._fd), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
                raise PermissionError(errno.EPERM, "must be a file that only you may write", f"{self.path}/{leaf}")
            content = file.read(limit + 1)
        if len(content) > limit:
            raise OSError(errno.EFBIG, f"is longer than {limit} bytes", f"{self.path}/{leaf}")
        return content


def runtime_dir(environ: Optional[Mapping[str, str]] = None) -> str:
    """The broker's runtime directory, such as /run/user/1000/zcbroker. Makes
    nothing: BrokerError where no broker ever ran."""
    with RuntimeDir.find(os.environ if environ is None else environ) as found:
        return found.path


# --- Named routes


class NamedRoute(NamedTuple):
    """The files of one version of a service."""

    socket: str  # a name that always leads there; older clients use it
    info: str  # says where the backend itself listens


def _stem(version: str) -> str:
    if len(version) <= _MAX_STEM_BYTES:
        return version
    return blake3.blake3(version.encode()).hexdigest()[:16]


def named_route(directory: str, service: str, version: str) -> NamedRoute:
    """Where the named route of a version is in a runtime directory. ValueError
    for what is no name or no version."""
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"{service[:80]!r} is no service name: 1 to 64 characters of a-z, 0-9 and '-'")
    if len(version) > 64 or not _VERSION.fullmatch(version):
        raise ValueError(f"{version[:80]!r} is no version: three numbers joined by dots, optionally '-' and a tail")
    base = f"{directory}/routes/{service}/{_stem(version)}"
    return NamedRoute(f"{base}.sock", f"{base}.info")


def decode_route_info(content: bytes) -> launcher_pb2.RouteInfo:
    """What a `.info` file says. RouteInfoInvalid."""
    try:
        info = launcher_pb2.RouteInfo.FromString(content)
        _sockets.check_endpoint(info.endpoint)
    except (DecodeError, ValueError) as error:
        raise RouteInfoInvalid(f"no route info: {error}") from error
    return info


def read_route_info(directory: RuntimeDir, service: str, version: str) -> launcher_pb2.RouteInfo:
    """OSError, RouteInfoInvalid; ValueError for what is no name or no version."""
    leaf = os.path.basename(named_route(directory.path, service, version).info)
    with directory.below("routes", service) as routes:
        info = decode_route_info(routes.read_file(leaf, _MAX_INFO_BYTES))
    if (info.service, info.version) != (service, version):
        raise RouteInfoInvalid(f"{leaf} is of {info.service} {info.version}")
    return info


# --- Worlds


def _fnv64(content: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in content:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _namespace(raw: str) -> str:
    trimmed = raw.strip(_WHITE)
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", trimmed)
    if len(safe) <= 32:
        return safe or "default"
    value = _fnv64(os.fsencode(trimmed))
    return f"{safe[:32]}-{(value ^ value >> 32) & 0xFFFFFFFF:08x}"


def world_of(environ: Mapping[str, str]) -> broker_pb2.World:
    """What two callers must have in common to share a daemon, as zccache and
    its kind read it from the environment."""
    root = environ.get("ZCCACHE_CACHE_DIR") or os.path.join(
        environ.get("HOME") or environ.get("USERPROFILE") or ".", ".zccache")
    return broker_pb2.World(cache_root="/" + os.path.abspath(root).lstrip("/"),
                            daemon_namespace=_namespace(environ.get("ZCCACHE_DAEMON_NAMESPACE", "")),
                            mount_namespace=os.readlink("/proc/self/ns/mnt"))


def world_id(world: broker_pb2.World) -> str:
    return f"{_fnv64(os.fsencode(world.cache_root) + bytes(1) + world.daemon_namespace.encode()):016x}"
