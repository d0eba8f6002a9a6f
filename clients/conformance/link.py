"""One connection through the proxy: two pumps, and what the scenario does to them."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from dataclasses import dataclass
from typing import Any

CHUNK = 65_536


class Cut(enum.Enum):
    """How a connection is cut: with RST, or with FIN."""

    RESET = "reset"
    FINISH = "finish"


class Direction(enum.Enum):
    """UP is from the client to the relay, DOWN is back."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class Plan:
    """What happens to one connection.

    `cut_after`: the connection is cut when exactly this number of bytes has passed in `direction`; 0 is at once.
    `hold_register`: the upgrade passes, what the client sends after it is held until the link is let go, even if
    the client has closed its side by then.
    `answer`: the proxy answers the upgrade itself, with these bytes.
    """

    cut_after: int | None = None
    direction: Direction = Direction.UP
    how: Cut = Cut.RESET
    hold_register: bool = False
    answer: bytes | None = None


class Link:
    """A connection of a client, and its connection to the relay."""

    def __init__(self, client: socket.socket, relay_port: int, plan: Plan, delay: float) -> None:
        self.plan = plan
        self.delay = delay
        self.passed = {Direction.UP: 0, Direction.DOWN: 0}
        self.was_cut = False
        self.held = asyncio.Event()
        self._client = client
        self._relay_port = relay_port
        self._cut: asyncio.Future[Cut] = asyncio.get_running_loop().create_future()
        self._flowing = {Direction.UP: asyncio.Event(), Direction.DOWN: asyncio.Event()}
        self._head = b""
        self.let_go()

    def stall(self) -> None:
        """From now on nothing is forwarded; the connection stays open."""
        for gate in self._flowing.values():
            gate.clear()

    def stall_down(self) -> None:
        """From now on nothing of the relay reaches the client."""
        self._flowing[Direction.DOWN].clear()

    def let_go(self) -> None:
        """Forwards again, first what has come in the meantime."""
        for gate in self._flowing.values():
            gate.set()

    def cut(self, how: Cut) -> None:
        """Ends both connections."""
        if not self._cut.done():
            self.was_cut = True
            self._cut.set_result(how)

    async def run(self) -> None:
        """Forwards until both sides have ended or the link is cut."""
        if self.plan.cut_after == 0:
            self.cut(self.plan.how)
            _close(self._client, self.plan.how)
            return
        work = asyncio.create_task(self._answer() if self.plan.answer is not None else self._forward())
        try:
            both: set[asyncio.Future[Any]] = {work, self._cut}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        finally:
            broken = not work.done() or work.cancelled() or work.exception() is not None
            _close(self._client, self._how_it_ends(broken))

    def _how_it_ends(self, broken: bool) -> Cut:
        if self._cut.done():
            return self._cut.result()
        return Cut.RESET if broken else Cut.FINISH

    async def _answer(self) -> None:
        """Reads the head of the upgrade, and answers it."""
        loop = asyncio.get_running_loop()
        while b"\r\n\r\n" not in self._head:
            got = await loop.sock_recv(self._client, CHUNK)
            if not got:
                return
            self._head += got
        await loop.sock_sendall(self._client, self.plan.answer or b"")

    async def _forward(self) -> None:
        loop = asyncio.get_running_loop()
        # A stalled link does not even connect to the relay.
        await self._flowing[Direction.UP].wait()
        relay = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        relay.setblocking(False)
        broken = True
        pumps: list[asyncio.Task[None]] = []
        try:
            await loop.sock_connect(relay, ("127.0.0.1", self._relay_port))
            for side in (relay, self._client):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = [
                asyncio.create_task(self._pump(self._client, relay, Direction.UP)),
                asyncio.create_task(self._pump(relay, self._client, Direction.DOWN)),
            ]
            await asyncio.gather(*pumps)
            broken = False
        finally:
            for pump in pumps:
                pump.cancel()
            try:
                await asyncio.gather(*pumps, return_exceptions=True)
            finally:
                _close(relay, self._how_it_ends(broken))

    async def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        """Forwards one direction until the source ends it."""
        loop = asyncio.get_running_loop()
        gate = self._flowing[direction]
        while True:
            chunk = await loop.sock_recv(source, CHUNK)
            if direction is Direction.UP:
                self._hold_what_follows_the_upgrade(chunk)
            if self.delay > 0:
                await asyncio.sleep(self.delay)
            await gate.wait()
            if not chunk:
                target.shutdown(socket.SHUT_WR)
                return
            if self.plan.cut_after is not None and direction is self.plan.direction:
                chunk = chunk[: self.plan.cut_after - self.passed[direction]]
            await loop.sock_sendall(target, chunk)
            self.passed[direction] += len(chunk)
            if direction is self.plan.direction and self.passed[direction] == self.plan.cut_after:
                self.cut(self.plan.how)
                await asyncio.Event().wait()

    def _hold_what_follows_the_upgrade(self, chunk: bytes) -> None:
        """A client sends nothing after its upgrade before that is answered, so the next chunk begins with its Register."""
        if not self.plan.hold_register or self.held.is_set():
            return
        if b"\r\n\r\n" in self._head:
            self._flowing[Direction.UP].clear()
            self.held.set()
        self._head += chunk


def _close(side: socket.socket, how: Cut) -> None:
    """Closes one side. With FIN, what was written before still arrives."""
    if how is Cut.RESET:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()
