"""Waiting for a condition instead of for a time.

Everything that happens in a run (a line of a driver, the end of a process) rings the bell of this run; whoever waits then looks
again whether the own condition holds. Deadlines are only there so that a run that hangs ends with a sentence.
"""

from __future__ import annotations

import asyncio
import time
from typing import Callable

from .failure import Failure


class Bell:
    """Wakes all who wait, and ends all waits once something is broken for good."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waiting: set[asyncio.Future[None]] = set()
        self._broken: str | None = None

    def ring(self) -> None:
        """Says that something has changed."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def break_off(self, reason: str) -> None:
        """Says that the run cannot go on, because of `reason`."""
        if self._broken is None:
            self._broken = reason
        self.ring()

    async def until(self, condition: Callable[[], bool], what: str, seconds: float | None = None) -> None:
        """Waits until the condition holds; fails with `what` after `seconds` (the patience of the run)."""
        deadline = time.monotonic() + (self.patience if seconds is None else seconds)
        while True:
            if self._broken is not None:
                raise Failure(self._broken)
            if condition():
                return
            left = deadline - time.monotonic()
            if left <= 0 or not await self._rung(left):
                if condition():
                    return
                raise Failure(f"waited in vain for: {what}")

    async def never(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Watches for a time that the condition does not come to hold; a short look cannot prove more than that."""
        deadline = time.monotonic() + seconds
        while True:
            if self._broken is not None:
                raise Failure(self._broken)
            if condition():
                raise Failure(f"must not happen: {what}")
            left = deadline - time.monotonic()
            if left <= 0:
                return
            await self._rung(left)

    async def _rung(self, seconds: float) -> bool:
        """Waits for the next ring, at most for a time; says whether it rang."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait_for(future, seconds)
        except asyncio.TimeoutError:
            return False
        finally:
            self._waiting.discard(future)
        return True
