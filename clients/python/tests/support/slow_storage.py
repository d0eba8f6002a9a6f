"""A storage in memory that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sealpost import MemoryStorage
from sealpost.storage import HandedOver, Identity


class SlowStorage(MemoryStorage):
    """Each write of one kind takes the seconds that the test gives; all others take none."""

    def __init__(self, *, save_identity: float = 0, mark_written: float = 0, remember: float = 0) -> None:
        super().__init__()
        self._save_identity = save_identity
        self._mark_written = mark_written
        self._remember = remember

    async def save_identity(self, identity: Identity) -> None:
        await asyncio.sleep(self._save_identity)
        await super().save_identity(identity)

    async def mark_written(self, message_ids: Sequence[str]) -> None:
        await asyncio.sleep(self._mark_written)
        await super().mark_written(message_ids)

    async def remember(self, handed_over: HandedOver) -> None:
        await asyncio.sleep(self._remember)
        await super().remember(handed_over)
