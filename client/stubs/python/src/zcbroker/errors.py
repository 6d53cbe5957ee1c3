"""What can go wrong, as types; decide by them, never by their text."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Mapping, Optional

from zcbroker.v1 import errors_pb2

if TYPE_CHECKING:
    import grpc


class FallbackReason(str, enum.Enum):
    """Why the daemon was reached directly although something else was asked
    for. `zcbroker explain` spells them the same way."""

    FAKE_BACKEND_DEAD = "fake_backend_dead"  # RUNNING_PROCESS_FAKE_BACKEND does not answer
    BROKER_MISSING = "broker_missing"  # no socket, or no runtime directory
    BROKER_REFUSED = "broker_refused"  # a socket on which nobody listens
    BROKER_UNREACHABLE = "broker_unreachable"  # it could not be used: permissions
    BROKER_FOREIGN = "broker_foreign"  # the other end is another user
    BROKER_MUTE = "broker_mute"  # no sign of life
    BROKER_SLOW = "broker_slow"  # alive, but no answer in time
    BROKER_CLOSED = "broker_closed"  # the connection broke before an answer
    BROKER_GARBAGE = "broker_garbage"  # the answer is not of the protocol
    BROKER_WRONG_REPLY = "broker_wrong_reply"  # no usable route, or of another version
    BROKER_REFUSAL = "broker_refusal"  # the broker said no: Refused
    LANE_UNSUPPORTED = "lane_unsupported"  # the backend speaks none of the caller's wire lanes
    ROUTE_DEAD = "route_dead"  # the backend of the route does not accept
    ROUTE_FOREIGN = "route_foreign"  # it belongs to another user


class Error(Exception):
    """All errors of this package but ValueError."""


class RouteInfoInvalid(Error):
    """The bytes are no route info, or it leads to no endpoint."""


class BrokerError(Error):
    """The way that was asked for leads to no daemon; `fallback` says why."""

    def __init__(self, fallback: FallbackReason, text: str):
        super().__init__(text)
        self.fallback = fallback


class Refused(BrokerError):
    """The broker said no."""

    def __init__(self, code: grpc.StatusCode, text: str, reason: str, domain: str, metadata: Mapping[str, str],
                 detail: errors_pb2.RefusalDetail, retry_after: Optional[float]):
        super().__init__(FallbackReason.BROKER_REFUSAL, f"the broker refused: {text}")
        #: The gRPC status code.
        self.code = code
        #: The refusal's name: "SERVICE_UNKNOWN". docs/protocol.md has them all.
        self.reason = reason
        #: "zcbroker".
        self.domain = domain
        #: Service and version as the broker read them, and more where it helps.
        self.metadata = metadata
        #: The facts: installed versions, evidence.
        self.detail = detail
        #: Seconds after which trying again can help; None: it does not.
        self.retry_after = retry_after


class NoDaemon(Error):
    """Nobody answers at the direct endpoint."""

    def __init__(self, endpoint: str, cause: OSError, fallback: Optional[BrokerError]):
        after = f" (after {fallback.fallback.value}: {fallback})" if fallback else ""
        super().__init__(f"connect {endpoint}: {cause.strerror or cause}{after}")
        #: Why it had come to that, where something else was asked for.
        self.fallback = fallback
