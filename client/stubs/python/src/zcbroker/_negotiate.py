"""Asking the broker, over gRPC. Imported only by who has to ask: gRPC takes a
fifth of a second to load."""

from __future__ import annotations

import os
import socket
import threading
from typing import Optional
from urllib.parse import quote

import grpc
from google.rpc import error_details_pb2, status_pb2

from zcbroker import _sockets
from zcbroker.errors import BrokerError, FallbackReason, Refused
from zcbroker.v1 import broker_pb2, errors_pb2

_CONTACT_TIMEOUT = 0.5
_DOMAIN = "zcbroker"
_CHANNEL_OPTIONS = [
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
# The framed lane's HEALTHZ: 0x01, length, Frame{1, REQUEST, 0xAD01, verb 4, id 2}.
_HEALTHZ = bytes.fromhex("010c000000080118" + "81da02" + "22020804" + "2802")

_FAILURES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: FallbackReason.BROKER_SLOW,
    grpc.StatusCode.UNAVAILABLE: FallbackReason.BROKER_CLOSED,
    grpc.StatusCode.CANCELLED: FallbackReason.BROKER_CLOSED,
    grpc.StatusCode.UNIMPLEMENTED: FallbackReason.BROKER_WRONG_REPLY,
}


def ask(broker: str, request: broker_pb2.NegotiateRequest, timeout: float) -> broker_pb2.NegotiateResponse:
    """Asks the broker at that socket. Refused, BrokerError."""
    deadline = _sockets.Deadline(timeout)
    _dial_broker(broker, deadline).close()
    with grpc.insecure_channel(f"unix:{quote(broker)}", _CHANNEL_OPTIONS) as channel:
        # As a stream of one: a unary call tells of initial metadata only together with the answer.
        call = channel.unary_stream(
            "/zcbroker.v1.Broker/Negotiate", request_serializer=broker_pb2.NegotiateRequest.SerializeToString,
            response_deserializer=broker_pb2.NegotiateResponse.FromString)(request, timeout=deadline.remaining())
        _await_contact(call, broker, deadline)
        try:
            response = next(call, broker_pb2.NegotiateResponse())
        except grpc.RpcError as error:
            raise _failure(error) from error
    if response.route.version != request.wanted_version:
        raise BrokerError(FallbackReason.BROKER_WRONG_REPLY, f"the broker answered version {response.route.version!r}")
    try:
        _sockets.check_endpoint(response.route.endpoint)
    except ValueError as error:
        raise BrokerError(FallbackReason.BROKER_WRONG_REPLY, f"the broker answered {error}") from error
    return response


def _dial_broker(broker: str, deadline: _sockets.Deadline) -> socket.socket:
    """gRPC connects by itself and tells nobody who is there, so this looks."""
    try:
        sock = _sockets.dial(broker, deadline.remaining(_CONTACT_TIMEOUT))
    except (OSError, ValueError) as error:
        reason = FallbackReason.BROKER_UNREACHABLE
        if isinstance(error, FileNotFoundError):
            reason = FallbackReason.BROKER_MISSING
        elif isinstance(error, ConnectionRefusedError):
            reason = FallbackReason.BROKER_REFUSED
        elif isinstance(error, BlockingIOError):
            reason = FallbackReason.BROKER_MUTE
        raise BrokerError(reason, f"broker: connect {broker}: {error}") from error
    uid = _sockets.peer(sock)[1]
    if uid == os.geteuid():
        return sock
    sock.close()
    raise BrokerError(FallbackReason.BROKER_FOREIGN, f"{broker} belongs to uid {uid}, not to {os.geteuid()}")


def _await_contact(call: grpc.Call, broker: str, deadline: _sockets.Deadline) -> None:
    """A broker that waits for a backend sends initial metadata at once. One
    whose gRPC server is just being built may be late, so its health is asked
    for on the framed lane before it counts as mute."""
    heard = threading.Event()

    def listen() -> None:
        call.initial_metadata()
        heard.set()

    threading.Thread(target=listen, daemon=True).start()
    if heard.wait(deadline.remaining(_CONTACT_TIMEOUT)) or _is_alive(broker, deadline) or heard.is_set():
        return
    call.cancel()
    raise BrokerError(FallbackReason.BROKER_MUTE, f"the broker at {broker} gives no sign of life")


def _is_alive(broker: str, deadline: _sockets.Deadline) -> bool:
    try:
        with _dial_broker(broker, deadline) as sock:
            sock.settimeout(max(deadline.remaining(_CONTACT_TIMEOUT), 0.001))
            sock.sendall(_HEALTHZ)
            return sock.recv(1) == b"\1"
    except (OSError, BrokerError):
        return False


def _failure(error: grpc.RpcError) -> BrokerError:
    """What a failed call means, given that the broker was heard from."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            refused = _refusal(error, status_pb2.Status.FromString(value))
            if refused is not None:
                return refused
    return BrokerError(_FAILURES.get(error.code(), FallbackReason.BROKER_GARBAGE), f"broker: {error.details()}")


def _refusal(error: grpc.RpcError, rich: status_pb2.Status) -> Optional[Refused]:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    detail = errors_pb2.RefusalDetail()
    retry_after = None
    for any_message in rich.details:
        if any_message.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        elif not any_message.Unpack(info):
            any_message.Unpack(detail)
    if info.domain != _DOMAIN:
        return None
    return Refused(error.code(), error.details(), info.reason, info.domain, dict(info.metadata), detail, retry_after)
