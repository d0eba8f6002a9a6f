"""The proxy does to connections what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import unittest
from typing import cast

from ..bell import Bell
from ..journal import Journal
from ..link import Cut, Direction, Plan
from ..ports import free_port
from ..proxy import Proxy
from ..relay import Relay

SECONDS = 20.0


class Echo:
    """Stands in for the relay: sends everything back, and keeps what it got."""

    def __init__(self, bell: Bell) -> None:
        self.port = free_port()
        self._bell = bell
        self.got: list[bytes] = []
        self.ends: list[str] = []
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Does not listen any more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.got)
        self.got.append(b"")
        self.ends.append("")
        try:
            while True:
                chunk = await reader.read(1_000)
                if not chunk:
                    self.ends[number] = "finished"
                    break
                self.got[number] += chunk
                writer.write(chunk)
        except ConnectionResetError:
            self.ends[number] = "reset"
        finally:
            writer.close()
            self._bell.ring()


class ProxyTest(unittest.IsolatedAsyncioTestCase):
    """A client, the proxy, and an echo."""

    async def asyncSetUp(self) -> None:
        self.bell = Bell(SECONDS)
        self.echo = Echo(self.bell)
        await self.echo.start()
        self.proxy = Proxy("test", cast(Relay, self.echo), Journal(), self.bell)
        self.proxy.allow()
        self.loop = asyncio.get_running_loop()
        self.sockets: list[socket.socket] = []

    async def asyncTearDown(self) -> None:
        for opened in self.sockets:
            opened.close()
        await self.proxy.close()
        await self.echo.stop()

    async def connect(self) -> socket.socket:
        """A connection through the proxy."""
        opened = socket.socket()
        opened.setblocking(False)
        self.sockets.append(opened)
        await self.loop.sock_connect(opened, ("127.0.0.1", self.proxy.port))
        return opened

    async def read(self, opened: socket.socket, count: int) -> bytes:
        """So many bytes, or what came until the end."""
        got = b""
        while len(got) < count:
            chunk = await asyncio.wait_for(self.loop.sock_recv(opened, count - len(got)), SECONDS)
            if not chunk:
                break
            got += chunk
        return got

    async def test_it_forwards(self) -> None:
        client = await self.connect()
        await self.loop.sock_sendall(client, b"hello")
        self.assertEqual(await self.read(client, 5), b"hello")

    async def test_an_end_passes_in_both_directions(self) -> None:
        client = await self.connect()
        await self.loop.sock_sendall(client, b"hello")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(await self.read(client, 99), b"hello")
        await self.bell.until(lambda: not self.proxy.links, "the link ends")
        self.assertEqual(self.echo.ends, ["finished"])

    async def test_it_cuts_after_exactly_so_many_bytes_to_the_relay(self) -> None:
        self.proxy.plan(Plan(cut_after=3, direction=Direction.UP, how=Cut.FINISH))
        client = await self.connect()
        await self.loop.sock_sendall(client, b"hello")
        await self.bell.until(lambda: not self.proxy.links, "the link ends")
        await self.until_the_echo_ends()
        self.assertEqual(self.echo.got, [b"hel"])

    async def test_it_cuts_after_exactly_so_many_bytes_to_the_client(self) -> None:
        self.proxy.plan(Plan(cut_after=3, direction=Direction.DOWN, how=Cut.FINISH))
        client = await self.connect()
        await self.loop.sock_sendall(client, b"hello")
        self.assertEqual(await self.read(client, 99), b"hel")

    async def test_a_cut_with_reset_is_seen_as_one(self) -> None:
        client = await self.connect()
        await self.loop.sock_sendall(client, b"hello")
        self.assertEqual(await self.read(client, 5), b"hello")
        self.proxy.cut(Cut.RESET)
        with self.assertRaises(ConnectionResetError):
            await self.read(client, 1)
        await self.until_the_echo_ends()
        self.assertEqual(self.echo.ends, ["reset"])

    async def test_what_is_stalled_arrives_when_it_is_let_go(self) -> None:
        client = await self.connect()
        await self.loop.sock_sendall(client, b"one")
        self.assertEqual(await self.read(client, 3), b"one")
        self.proxy.stall(new_ones_too=False)
        await self.loop.sock_sendall(client, b"two")
        other = await self.connect()
        await self.loop.sock_sendall(other, b"past it")
        self.assertEqual(await self.read(other, 7), b"past it")
        self.assertEqual(self.echo.got[0], b"one")
        self.proxy.let_go()
        self.assertEqual(await self.read(client, 3), b"two")

    async def test_it_refuses_and_accepts_again_on_the_same_port(self) -> None:
        await self.proxy.refuse()
        with self.assertRaises(ConnectionRefusedError):
            await self.connect()
        self.proxy.allow()
        client = await self.connect()
        await self.loop.sock_sendall(client, b"hello")
        self.assertEqual(await self.read(client, 5), b"hello")

    async def test_what_follows_the_upgrade_is_held_and_passes_after_the_client_has_gone(self) -> None:
        self.proxy.plan(Plan(hold_register=True))
        client = await self.connect()
        await self.loop.sock_sendall(client, b"GET\r\n\r\n")
        self.assertEqual(await self.read(client, 7), b"GET\r\n\r\n")
        link = self.proxy.links[0]
        await self.loop.sock_sendall(client, b"Register")
        await asyncio.wait_for(link.held.wait(), SECONDS)
        client.close()
        self.assertEqual(self.echo.got, [b"GET\r\n\r\n"])
        self.proxy.let_go()
        await self.until_the_echo_ends()
        self.assertEqual(self.echo.got, [b"GET\r\n\r\nRegister"])

    async def test_it_answers_an_upgrade_itself(self) -> None:
        self.proxy.plan(Plan(answer=b"HTTP/1.1 503 No\r\n\r\n"))
        client = await self.connect()
        await self.loop.sock_sendall(client, b"GET\r\n\r\n")
        self.assertEqual(await self.read(client, 99), b"HTTP/1.1 503 No\r\n\r\n")
        self.assertEqual(self.echo.got, [])

    async def test_it_resets_the_client_where_there_is_no_relay(self) -> None:
        await self.echo.stop()
        client = await self.connect()
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(await self.read(client, 1), b"")

    async def until_the_echo_ends(self) -> None:
        """The echo sees the end of its first connection."""
        await self.bell.until(lambda: bool(self.echo.ends and self.echo.ends[0]), "the echo sees the end")


if __name__ == "__main__":
    unittest.main()
