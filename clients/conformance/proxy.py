"""A TCP proxy on the loopback between one device and the relay; the scenario decides what it does to the connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

from .bell import Bell
from .journal import Journal
from .link import Cut, Link, Plan
from .ports import free_port, listening_socket
from .relay import Relay


class Proxy:
    """Listens on a fixed port for as long as it does not refuse."""

    def __init__(self, name: str, relay: Relay, journal: Journal, bell: Bell) -> None:
        self.port = free_port()
        self.delay = 0.0
        self.accepted = 0
        self.links: list[Link] = []
        self._name = name
        self._relay = relay
        self._journal = journal
        self._bell = bell
        self._plans: deque[Plan] = deque()
        self._stalled = False
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """What the device connects to."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def plan(self, *plans: Plan) -> None:
        """Says what happens to the next connections, one plan for each."""
        self._plans.extend(plans)

    def allow(self) -> None:
        """Accepts connections."""
        if self._listening is None:
            self._listening = listening_socket(self.port)
            self._accepting = asyncio.create_task(self._accept(self._listening))

    async def refuse(self) -> None:
        """New connections are refused from now on; those that there are stay."""
        if self._accepting is not None and self._listening is not None:
            accepting, self._accepting = self._accepting, None
            listening, self._listening = self._listening, None
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            listening.close()
            self._journal.note(self._name, "proxy refuses")

    def cut(self, how: Cut = Cut.RESET) -> None:
        """Cuts all connections."""
        self._journal.note(self._name, f"proxy cuts {len(self.links)} with {how.value}")
        for link in self.links:
            link.cut(how)

    async def go_away(self, how: Cut = Cut.RESET) -> None:
        """Refuses new connections and cuts those that there are: the device is off the net."""
        await self.refuse()
        self.cut(how)

    def stall(self, new_ones_too: bool) -> None:
        """Keeps connections open and forwards nothing."""
        self._journal.note(self._name, f"proxy stalls {len(self.links)}{' and new ones' if new_ones_too else ''}")
        self._stalled = new_ones_too
        for link in self.links:
            link.stall()

    def let_go(self) -> None:
        """Ends all stalls and holds; what was held goes on its way."""
        self._journal.note(self._name, "proxy forwards")
        self._stalled = False
        for link in self.links:
            link.let_go()

    def behave(self) -> None:
        """Ends all faults."""
        self._plans.clear()
        self.delay = 0.0
        for link in self.links:
            link.delay = 0.0
        self.let_go()
        self.allow()

    def slow_down(self, delay: float) -> None:
        """Delays each chunk, in both directions."""
        self._journal.note(self._name, f"proxy delays by {delay:.3f} s")
        self.delay = delay
        for link in self.links:
            link.delay = delay

    async def close(self) -> None:
        """Ends everything."""
        await self.refuse()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listening)
            self._begin(client)

    def _begin(self, client: socket.socket) -> None:
        plan = self._plans.popleft() if self._plans else Plan()
        link = Link(client, self._relay.port, plan, self.delay)
        if self._stalled:
            link.stall()
        self.accepted += 1
        self.links.append(link)
        self._journal.note(self._name, f"proxy accepts connection {self.accepted}{'' if plan == Plan() else f': {plan}'}")
        self._bell.ring()
        task = asyncio.create_task(self._run(link))
        self._running.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._running.discard(done)
            self.links.remove(link)
            # A task that was cancelled before it began has not closed anything.
            client.close()
            self._bell.ring()

        task.add_done_callback(ended)

    async def _run(self, link: Link) -> None:
        with contextlib.suppress(OSError):
            await link.run()
