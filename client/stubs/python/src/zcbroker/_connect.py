"""The one call by which a program reaches its daemon."""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
import socket
from typing import Mapping, Optional, Sequence

from zcbroker import _places, _sockets
from zcbroker.errors import BrokerError, FallbackReason, NoDaemon, RouteInfoInvalid
from zcbroker.v1 import broker_pb2, launcher_pb2

NEGOTIATION_TIMEOUT = 12.0
_LOG = logging.getLogger("zcbroker")


class Lane(str, enum.Enum):
    """Which way a connection took."""

    DIRECT = "direct"
    FAKE_BACKEND = "fake_backend"
    BROKER = "broker"


class By(str, enum.Enum):
    """How the broker's way was found."""

    ROUTE_INFO = "route_info"  # the file said where; no broker was asked
    NEGOTIATION = "negotiation"


@dataclasses.dataclass
class Connection:
    """A connection to a daemon, and how it came about. A context manager that
    closes it."""

    #: Connected and blocking; yours.
    sock: socket.socket
    lane: Lane
    #: Where it leads.
    endpoint: str
    #: Both only on the broker's lane.
    by: Optional[By] = None
    route: Optional[broker_pb2.BackendRoute] = None
    #: What to speak: the first of the caller's wire lanes that the backend
    #: understands, or the backend's best; None on other lanes.
    wire_lane: Optional[int] = None
    #: Set where something else was asked for: why it was not to be had.
    fallback_error: Optional[BrokerError] = None

    @property
    def fallback(self) -> Optional[FallbackReason]:
        return None if self.fallback_error is None else self.fallback_error.fallback

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_) -> None:
        self.sock.close()


def connect(direct_endpoint: str, *, version: str, service: str = "zccache", lanes: Sequence[int] = (),
            connect_timeout: float = 30.0, negotiation_timeout: float = NEGOTIATION_TIMEOUT,
            start_policy: int = broker_pb2.START_POLICY_IF_NEEDED, world: Optional[broker_pb2.World] = None,
            client_name: str = "zcbroker-python", client_version: str = "",
            environ: Optional[Mapping[str, str]] = None) -> Connection:
    """Connects to the daemon of `service` at exactly `version`, by the first row
    whose condition holds:

    1. RUNNING_PROCESS_DISABLE is "1": `direct_endpoint`
    2. RUNNING_PROCESS_FAKE_BACKEND is not empty: there, else direct
    3. ZCCACHE_BROKER_CONNECT is "1": where the broker says, else direct
    4. otherwise: `direct_endpoint`

    With ZCBROKER_STRICT=1 rows 2 and 3 do not fall back but raise BrokerError
    (Refused where the broker said no). NoDaemon where the direct endpoint does
    not answer, ValueError where it is no path for a socket.

    `lanes` are wire lanes (zcbroker.v1.broker_pb2.WIRE_LANE_...), the best
    first; none: whatever the backend speaks. Each connection may take
    `connect_timeout` seconds. Thread-safe."""
    environ = os.environ if environ is None else environ
    _sockets.check_endpoint(direct_endpoint)
    why = None
    if environ.get("RUNNING_PROCESS_DISABLE") != "1":
        fake = environ.get("RUNNING_PROCESS_FAKE_BACKEND", "")
        try:
            if fake:
                return _dial_fake_backend(fake, connect_timeout)
            if environ.get("ZCCACHE_BROKER_CONNECT") == "1":
                request = broker_pb2.NegotiateRequest(
                    service=service, wanted_version=version, accepted_lanes=lanes, client_name=client_name,
                    client_version=client_version, start_policy=start_policy,
                    world=_places.world_of(environ) if world is None else world)
                return _dial_broker_route(request, connect_timeout, negotiation_timeout, environ)
        except BrokerError as error:
            if environ.get("ZCBROKER_STRICT") == "1":
                raise
            why = error
    try:
        sock = _sockets.dial(direct_endpoint, connect_timeout)
    except OSError as error:
        raise NoDaemon(direct_endpoint, error, why) from error
    return Connection(sock, Lane.DIRECT, direct_endpoint, fallback_error=why)


def negotiate(request: broker_pb2.NegotiateRequest, *, timeout: float = NEGOTIATION_TIMEOUT,
              environ: Optional[Mapping[str, str]] = None) -> broker_pb2.NegotiateResponse:
    """Asks the broker of this user where a backend listens; it is started where
    need be. Blocks for `timeout` seconds at most. Thread-safe.

    Refused where the broker says no, BrokerError for every other failure."""
    broker = f"{_places.runtime_dir(environ)}/broker.sock"
    from zcbroker import _negotiate  # pylint: disable=import-outside-toplevel
    return _negotiate.ask(broker, request, timeout)


def _dial_fake_backend(path: str, timeout: float) -> Connection:
    try:
        return Connection(_sockets.dial(path, timeout), Lane.FAKE_BACKEND, path)
    except (OSError, ValueError) as error:
        text = f"RUNNING_PROCESS_FAKE_BACKEND: {path}: {error}"
        _LOG.warning("%s; connecting directly", text)
        raise BrokerError(FallbackReason.FAKE_BACKEND_DEAD, text) from error


def _dial_broker_route(request: broker_pb2.NegotiateRequest, connect_timeout: float, negotiation_timeout: float,
                       environ: Mapping[str, str]) -> Connection:
    named = _dial_named_route(request, connect_timeout, environ)
    if named is not None:
        return named
    route = negotiate(request, timeout=negotiation_timeout, environ=environ).route
    wire_lane = _common_lane(request.accepted_lanes, route.lanes)
    if wire_lane is None:
        raise BrokerError(FallbackReason.LANE_UNSUPPORTED, f"{route.endpoint} speaks no wire lane of ours")
    try:
        sock = _sockets.dial(route.endpoint, connect_timeout)
    except OSError as error:
        raise BrokerError(FallbackReason.ROUTE_DEAD, f"the broker's route: connect {route.endpoint}: {error}") from error
    uid = _sockets.peer(sock)[1]
    if uid != os.geteuid():
        sock.close()
        raise BrokerError(FallbackReason.ROUTE_FOREIGN, f"{route.endpoint} belongs to uid {uid}")
    return Connection(sock, Lane.BROKER, route.endpoint, By.NEGOTIATION, route, wire_lane)


def _dial_named_route(request: broker_pb2.NegotiateRequest, timeout: float,
                      environ: Mapping[str, str]) -> Optional[Connection]:
    """By the route info of the broker's own world, or of the caller's. Whatever
    is wrong with it, the broker is asked next."""
    try:
        with _places.RuntimeDir.find(environ) as directory:
            own = _dial_info(directory, request, timeout)
            if own is not None:
                return own
            with directory.below("worlds", _places.world_id(request.world)) as other:
                return _dial_info(other, request, timeout)
    except (BrokerError, OSError):
        return None


def _dial_info(directory: _places.RuntimeDir, request: broker_pb2.NegotiateRequest,
               timeout: float) -> Optional[Connection]:
    try:
        info = _places.read_route_info(directory, request.service, request.wanted_version)
        if not _is_of_world(info, request.world):
            return None
        wire_lane = _common_lane(request.accepted_lanes, info.lanes)
        if wire_lane is None:
            return None
        sock = _sockets.dial(info.endpoint, timeout)
    except (OSError, RouteInfoInvalid, ValueError):
        return None
    pid, uid = _sockets.peer(sock)
    # Another process may listen there by now: an info outlives a killed broker.
    if uid != os.geteuid() or (pid and info.pid and pid != info.pid):
        sock.close()
        return None
    route = broker_pb2.BackendRoute(
        endpoint=info.endpoint, lanes=[lane for lane in info.lanes if lane in broker_pb2.WireLane.values()],
        version=info.version, pid=info.pid, start_time=info.start_time, boot_id=info.boot_id,
        generation=info.generation)
    return Connection(sock, Lane.BROKER, info.endpoint, By.ROUTE_INFO, route, wire_lane)


def _is_of_world(info: launcher_pb2.RouteInfo, world: broker_pb2.World) -> bool:
    """What either side leaves empty is not compared."""
    pairs = ((info.cache_root, world.cache_root), (info.daemon_namespace, world.daemon_namespace),
             (info.mount_namespace, world.mount_namespace))
    return all(not theirs or not ours or theirs == ours for theirs, ours in pairs)


def _common_lane(ours: Sequence[int], theirs: Sequence[int]) -> Optional[int]:
    """A broker that does not tell is taken to lead to any."""
    if not ours or not theirs:
        return next(iter([*ours, *theirs]), broker_pb2.WIRE_LANE_UNSPECIFIED)
    return next((lane for lane in ours if lane in theirs), None)
