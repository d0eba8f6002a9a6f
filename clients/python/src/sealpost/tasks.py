"""Tasks that end with their owner."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Coroutine
from typing import Any

from .events import logger


class Tasks:
    """Keeps tasks alive while they run, logs what they raise, and ends them together."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    async def cancel(self) -> None:
        """Cancel all tasks, and wait for their end."""
        self.cancel_but(())
        await self.join()

    def cancel_but(self, spared: Container[asyncio.Task[Any] | None]) -> None:
        """Cancel all tasks but some, without waiting for their end."""
        for task in self._running:
            if task not in spared:
                task.cancel()

    async def join(self, timeout: float | None = None) -> None:
        """Wait for the end of all tasks that run now, no longer than ``timeout``."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the client failed", exc_info=task.exception())
