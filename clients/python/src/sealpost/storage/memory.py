"""A storage that lives as long as its object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .base import REMEMBERED_IDS, Contents, HandedOver, Identity, OutboxRecord


class MemoryStorage:
    """Forgets everything with the process; for tests, and for devices that need no past."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.outbox: dict[str, OutboxRecord] = {}
        self.handed_over: dict[tuple[str, str], HandedOver] = {}

    async def open(self) -> Contents:
        """Return what an earlier client left in this object."""
        return Contents(self.identity, list(self.outbox.values()), list(self.handed_over.values()))

    async def save_identity(self, identity: Identity) -> None:
        """Replace the identity."""
        self.identity = identity

    async def clear_identity(self, given_up: Sequence[str]) -> None:
        """Remove the identity and these messages."""
        self.identity = None
        for message_id in given_up:
            self.outbox.pop(message_id, None)

    async def put(self, record: OutboxRecord) -> None:
        """Add a message."""
        self.outbox[record.message_id] = record

    async def mark_written(self, message_ids: Sequence[str]) -> None:
        """Mark messages as written."""
        for message_id in message_ids:
            if message_id in self.outbox:
                self.outbox[message_id] = replace(self.outbox[message_id], written=True)

    async def remove(self, message_id: str) -> None:
        """Remove a message."""
        self.outbox.pop(message_id, None)

    async def remember(self, handed_over: HandedOver) -> None:
        """Add an id, and forget the oldest beyond the limit."""
        self.handed_over[(handed_over.sender, handed_over.message_id)] = handed_over
        while len(self.handed_over) > REMEMBERED_IDS:
            del self.handed_over[next(iter(self.handed_over))]

    async def close(self) -> None:
        """Keep everything for the next client that is given this object."""
