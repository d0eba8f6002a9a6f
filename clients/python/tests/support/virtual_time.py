"""An event loop whose clock jumps to the next timer when nothing else is left to do."""

from __future__ import annotations

import asyncio
from typing import Any

#: A test that waits for longer than this waits for something that never comes.
LIMIT = 20_000.0
#: Real seconds to wait where there is no timer at all, for what other threads do.
REAL_LIMIT = 10.0


class VirtualTime:
    """Takes the place of the loop's selector and of its clock."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._selector = loop._selector
        self._time = loop.time
        self._now = 1000.0

    def __enter__(self) -> None:
        self._loop.time = lambda: self._now
        self._loop._selector = self

    def __exit__(self, *_: object) -> None:
        self._loop._selector = self._selector
        self._loop.time = self._time

    def select(self, timeout: float | None) -> Any:
        """Never sleep: what would be a sleep moves the clock."""
        if timeout is None:
            events = self._selector.select(REAL_LIMIT)
            assert events, "nothing is left to do, and the test still waits"
            return events
        events = self._selector.select(0)
        if not events and timeout > 0:
            self._now += timeout
            assert self._now < LIMIT, "the test waits for something that never comes"
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


def now() -> float:
    """The time of the running loop."""
    return asyncio.get_running_loop().time()
