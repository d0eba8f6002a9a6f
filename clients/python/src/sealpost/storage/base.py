"""What a client needs of its storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

#: How many handed-over ids are remembered.
REMEMBERED_IDS = 10_000


@dataclass(frozen=True)
class Identity:
    """The device at the relay. The token is a secret: who has it is the device."""

    device_id: str
    resume_token: str = field(repr=False)


@dataclass(frozen=True)
class OutboxRecord:
    """A message that the relay has not acked."""

    message_id: str
    to: str
    #: The payload of the Send, without the ids and the ttl.
    content: Mapping[str, Any]
    ttl: int | None
    #: When send() was called, in Unix seconds.
    created: float
    #: Whether the message may have been written to a socket.
    written: bool = False


@dataclass(frozen=True)
class HandedOver:
    """A message whose handler has ended, by its sender and id; ``answer`` is what a key rotation was answered."""

    sender: str
    message_id: str
    answer: str | None = None


@dataclass(frozen=True)
class Contents:
    """All that a storage holds when it is opened."""

    identity: Identity | None
    #: In the order of the calls of send().
    outbox: Sequence[OutboxRecord]
    #: The oldest first.
    handed_over: Sequence[HandedOver]


class Storage(Protocol):
    """Keeps the identity, the outbox and the ids that were handed over.

    A method returns when its change is safe, and raises :class:`StorageError` when it is not. Changes are
    carried out in the order in which the methods are called.
    """

    async def open(self) -> Contents:
        """Take the storage into use."""

    async def save_identity(self, identity: Identity) -> None:
        """Replace the identity."""

    async def clear_identity(self, given_up: Sequence[str]) -> None:
        """Remove the identity, and in the same step these messages of the outbox."""

    async def put(self, record: OutboxRecord) -> None:
        """Add a message to the end of the outbox."""

    async def mark_written(self, message_ids: Sequence[str]) -> None:
        """Note that these messages may be written to a socket from now on."""

    async def remove(self, message_id: str) -> None:
        """Remove a message from the outbox."""

    async def remember(self, handed_over: HandedOver) -> None:
        """Add an id that was handed over; only the newest :data:`REMEMBERED_IDS` are kept."""

    async def close(self) -> None:
        """Carry out what was begun, and let go of the storage."""
