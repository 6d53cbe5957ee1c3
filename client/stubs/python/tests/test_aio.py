"""What asyncio adds: cancelling. All else is held by tests/conformance."""

import asyncio
import os
import socket
import tempfile
import unittest

import zcbroker
from zcbroker import aio


class CancelledConnect(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="zc", dir="/tmp")
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        os.mkdir(f"{self.path}/zcbroker", 0o700)
        self.environ = {"XDG_RUNTIME_DIR": self.path, "ZCCACHE_BROKER_CONNECT": "1"}
        self.mute_broker = self.listener("zcbroker/broker.sock")
        self.daemon = self.listener("direct")

    def listener(self, leaf):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.bind(f"{self.path}/{leaf}")
        sock.listen()
        sock.setblocking(False)
        return sock

    def connect(self):
        return aio.connect(f"{self.path}/direct", version="1.0.0", environ=self.environ)

    async def accepted(self, listener):
        peer, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 20)
        self.addCleanup(peer.close)
        return peer

    async def test_a_connection_that_still_comes_about_is_closed(self):
        task = asyncio.create_task(self.connect())
        await self.accepted(self.mute_broker)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        daemon = await self.accepted(self.daemon)
        self.assertEqual(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(daemon, 1), 20), b"")

    async def test_the_streams_are_those_of_the_connection(self):
        connecting = asyncio.create_task(self.connect())
        daemon = await self.accepted(self.daemon)
        async with await connecting as connection:
            self.assertEqual(connection.fallback, zcbroker.FallbackReason.BROKER_MUTE)
            connection.writer.write(b"ping")
            loop = asyncio.get_running_loop()
            self.assertEqual(await asyncio.wait_for(loop.sock_recv(daemon, 4), 20), b"ping")
            await loop.sock_sendall(daemon, b"pong")
            self.assertEqual(await asyncio.wait_for(connection.reader.readexactly(4), 20), b"pong")


if __name__ == "__main__":
    unittest.main()
