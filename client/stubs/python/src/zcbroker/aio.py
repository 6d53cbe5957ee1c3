"""The same for asyncio: `connect` gives streams.

What is slow in it is waiting for files and for the broker, which a thread of the
loop's executor does."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from typing import Optional

import zcbroker
from zcbroker.v1 import broker_pb2

__all__ = ["Connection", "connect", "negotiate"]


@dataclasses.dataclass
class Connection:
    """As zcbroker.Connection, with streams in place of the socket. An
    asynchronous context manager that closes them."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lane: zcbroker.Lane
    endpoint: str
    by: Optional[zcbroker.By]
    route: Optional[broker_pb2.BackendRoute]
    wire_lane: Optional[int]
    fallback_error: Optional[zcbroker.BrokerError]

    @property
    def fallback(self) -> Optional[zcbroker.FallbackReason]:
        return None if self.fallback_error is None else self.fallback_error.fallback

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def connect(direct_endpoint: str, **options) -> Connection:
    """As zcbroker.connect, with its options and errors. Cancelling is safe: a
    connection that still comes about is closed."""
    made = asyncio.get_running_loop().run_in_executor(
        None, functools.partial(zcbroker.connect, direct_endpoint, **options))
    try:
        connection = await asyncio.shield(made)
    except asyncio.CancelledError:
        made.add_done_callback(_close_unwanted)
        raise
    reader, writer = await asyncio.open_unix_connection(sock=connection.sock)
    return Connection(reader, writer, connection.lane, connection.endpoint, connection.by, connection.route,
                      connection.wire_lane, connection.fallback_error)


async def negotiate(request: broker_pb2.NegotiateRequest, **options) -> broker_pb2.NegotiateResponse:
    """As zcbroker.negotiate."""
    return await asyncio.get_running_loop().run_in_executor(
        None, functools.partial(zcbroker.negotiate, request, **options))


def _close_unwanted(made: asyncio.Future) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().sock.close()
