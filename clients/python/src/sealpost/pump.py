"""The one place from which frames leave that cost allowance."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Callable

from .errors import StorageError
from .frames import RelayError
from .link import Link
from .pacing import Pacing
from .refusals import RATE_LIMITED, wait_before_repeat
from .transport import SocketClosed

#: Messages that may be written and not yet answered.
MAX_UNDER_WAY = 32


class ItemState(Enum):
    """Where an item stands."""

    #: Not with the pump.
    IDLE = "idle"
    #: May leave when the allowance permits it.
    READY = "ready"
    #: Chosen to leave; what must be stored before is being stored.
    TAKEN = "taken"
    #: Written, and its answer is awaited.
    WRITTEN = "written"
    #: Refused, and to be repeated after a time.
    WAITING = "waiting"


class Item:
    """A frame that costs allowance."""

    def __init__(self, order: tuple[int, int], awaits_answer: bool) -> None:
        #: The smallest leaves first.
        self.order = order
        #: Whether it is written again on the next connection while it has no answer.
        self.awaits_answer = awaits_answer
        self.state = ItemState.IDLE
        self.refusals = 0
        self.timer: asyncio.TimerHandle | None = None

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order

    def frame(self, device_id: str) -> str:
        """The text of the frame, as it is to leave now."""
        raise NotImplementedError


class Pump:
    """Writes items in their order, within the allowance, and again after refusals that pass."""

    def __init__(self, pacing: Pacing, scale: float, before_write: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        self._pacing = pacing
        self._scale = scale
        self._before_write = before_write
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._ready: list[Item] = []
        #: Items that were refused for their rate. Nothing new leaves until they are through.
        self._rate_limited: set[Item] = set()
        #: Those of them whose time has come; the relay keeps a place for each, so they need no token.
        self._due: list[Item] = []
        self._under_way: set[Item] = set()

    def offer(self, item: Item) -> None:
        """Let ``item`` leave as soon as it may."""
        item.state = ItemState.READY
        heapq.heappush(self._due if item in self._rate_limited else self._ready, item)
        self._changed.set()

    def withdraw(self, item: Item) -> None:
        """Forget ``item``: it has its answer, or is not to leave any more."""
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
        item.state = ItemState.IDLE
        self._rate_limited.discard(item)
        self._under_way.discard(item)
        self._changed.set()

    def repeat_later(self, item: Item, error: RelayError | None = None) -> None:
        """Let ``item`` leave again after the time that ``error`` names, or a longer time with each refusal."""
        wait = wait_before_repeat(error, item.refusals, self._scale)
        item.refusals += 1
        self.withdraw(item)
        if error is not None and error.code == RATE_LIMITED:
            self._rate_limited.add(item)
            # The relay counts otherwise than this bucket, and what flows back is promised already.
            self._pacing.set_tokens(0, self._loop.time())
        item.state = ItemState.WAITING
        item.timer = self._loop.call_later(wait, self.offer, item)

    def forget_promises(self) -> None:
        """The allowance is that of a new device, to which nothing was promised."""
        self._rate_limited.clear()
        for item in self._due:
            heapq.heappush(self._ready, item)
        self._due.clear()
        self._changed.set()

    def disconnected(self) -> None:
        """The connection has ended: what has no answer leaves again on the next one."""
        for item in sorted(self._under_way):
            self._under_way.discard(item)
            if item.state is ItemState.TAKEN or item.awaits_answer:
                self.offer(item)

    async def run(self, link: Link, device_id: str) -> None:
        """Write items until the connection ends."""
        try:
            while True:
                self._changed.clear()
                batch = self._take_batch()
                if batch:
                    await self._write(batch, link, device_id)
                else:
                    await self._wait()
        except SocketClosed:
            pass  # Whoever reads from the connection sees why.

    def _take_batch(self) -> list[Item]:
        batch: list[Item] = []
        now = self._loop.time()
        while self._next(self._due) is not None:
            batch.append(self._take(self._due))
        while not self._rate_limited and self._pacing.wait(now) == 0:
            item = self._next(self._ready)
            if item is None or (item.awaits_answer and len(self._under_way) >= MAX_UNDER_WAY):
                break
            self._pacing.take(now)
            batch.append(self._take(self._ready))
        return batch

    def _next(self, heap: list[Item]) -> Item | None:
        while heap and heap[0].state is not ItemState.READY:
            heapq.heappop(heap)  # It was withdrawn meanwhile.
        return heap[0] if heap else None

    def _take(self, heap: list[Item]) -> Item:
        item = heapq.heappop(heap)
        item.state = ItemState.TAKEN
        self._under_way.add(item)
        return item

    async def _write(self, batch: Sequence[Item], link: Link, device_id: str) -> None:
        try:
            await self._before_write(batch)
        except StorageError:
            for item in batch:
                if item.state is ItemState.TAKEN:
                    self.repeat_later(item)
            return
        for item in batch:
            if item.state is not ItemState.TAKEN:
                continue  # It was withdrawn meanwhile.
            text = item.frame(device_id)
            if item.awaits_answer:
                item.state = ItemState.WRITTEN
            await link.send(text)
            if item.state is ItemState.TAKEN:
                self.withdraw(item)

    async def _wait(self) -> None:
        """Wait until there may be something to write."""
        wait = self._pacing.wait(self._loop.time())
        paced = wait > 0 and not self._rate_limited and self._next(self._ready) is not None
        timer = self._loop.call_later(wait, self._changed.set) if paced else None
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
