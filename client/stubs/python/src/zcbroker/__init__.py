"""Connects to background daemons, through zcbroker or without.

`connect` is all that most programs need; `zcbroker.aio` has it for asyncio.
`negotiate` asks the broker alone. The generated messages and services are in
`zcbroker.v1`."""

from zcbroker._connect import By, Connection, Lane, connect, negotiate
from zcbroker._places import NamedRoute, decode_route_info, named_route, runtime_dir
from zcbroker.errors import BrokerError, Error, FallbackReason, NoDaemon, Refused, RouteInfoInvalid

__all__ = [
    "By", "BrokerError", "Connection", "Error", "FallbackReason", "Lane", "NamedRoute", "NoDaemon", "Refused",
    "RouteInfoInvalid", "connect", "decode_route_info", "named_route", "negotiate", "runtime_dir",
]
