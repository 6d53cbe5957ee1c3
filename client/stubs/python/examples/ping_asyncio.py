"""usage: ping_asyncio.py DIRECT_ENDPOINT SERVICE VERSION"""
import asyncio
import sys

from zcbroker import aio

PING = bytes.fromhex("080000000f00000000000000")


async def main(endpoint, service, version):
    async with await aio.connect(endpoint, service=service, version=version) as daemon:
        daemon.writer.write(PING)
        assert await asyncio.wait_for(daemon.reader.readexactly(len(PING)), 5) == PING
        print(f"pong by {daemon.lane.value} at {daemon.endpoint}")


asyncio.run(main(*sys.argv[1:]))
