"""Notices that the system has slept."""

from __future__ import annotations

import asyncio
from typing import Callable

INTERVAL = 5.0
#: A timer that comes this number of seconds late came out of a sleep.
LATE = 10.0


async def watch_for_wake(wall: Callable[[], float], on_wake: Callable[[], None]) -> None:
    """Call ``on_wake`` after each sleep of the system.

    On some systems the clock of the event loop stands still in a sleep, on others it goes on, so both clocks are looked
    at. A wall clock that somebody sets is taken for a sleep; that costs one Ping.
    """
    loop = asyncio.get_running_loop()
    while True:
        loop_before, wall_before = loop.time(), wall()
        await asyncio.sleep(INTERVAL)
        if max(loop.time() - loop_before, wall() - wall_before) > INTERVAL + LATE:
            on_wake()
