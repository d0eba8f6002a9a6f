"""Messages that the relay has not acked."""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .environment import Environment
from .errors import Expired, GaveUp, Refused, SealpostError, StorageError
from .events import Emitter, Failed
from .frames import RelayError, encode
from .handle import Handle, Outcome
from .pump import Item, ItemState, Pump
from .receipts import Receipts
from .refusals import EXPIRED, TOO_LARGE, is_repeated
from .storage import OutboxRecord, Storage
from .tasks import Tasks

#: Of the two parts of an item's order; flows use a smaller first part, so they leave first.
SEND_ORDER = 1
IDENTITY_LOST = "identity lost"


class Entry(Item):
    """A message in the outbox."""

    def __init__(self, record: OutboxRecord, position: int, age: float, environment: Environment) -> None:
        super().__init__((SEND_ORDER, position), awaits_answer=True)
        self.id = record.message_id
        self.to = record.to
        self.ttl = record.ttl
        self.handle = Handle(record.message_id, record.to)
        self.stored: Outcome[None] = Outcome()
        #: Whether the storage says that it may have been written, and whether that may be true.
        self.marked = record.written
        self.written = record.written
        #: Whether the application of this process has the handle.
        self.own = False
        self.expiry: asyncio.TimerHandle | None = None
        self.size = 0
        self._content = record.content
        self._environment = environment
        self._sent_at = environment.uptime() - age

    def ttl_left(self) -> float:
        """Seconds until the message has waited for its ttl."""
        if self.ttl is None:
            return math.inf
        return self.ttl - (self._environment.uptime() - self._sent_at)

    def text(self, device_id: str) -> str:
        """The frame, with what is left of the ttl."""
        payload = {"recipient_id": self.to, "sender_id": device_id, "message_id": self.id, **self._content}
        if self.ttl is not None:
            payload["ttl"] = self.ttl if self.ttl == 0 else max(1, round(self.ttl_left()))
        return encode("Send", payload)

    def frame(self, device_id: str) -> str:
        """The frame, which is written now."""
        text = self.text(device_id)
        self.size = len(text)
        self.written = True
        return text


class Outbox:
    """One queue for each recipient; only the first of each queue is with the pump."""

    def __init__(
        self, storage: Storage, environment: Environment, events: Emitter, receipts: Receipts, tasks: Tasks
    ) -> None:
        self._storage = storage
        self._environment = environment
        self._events = events
        self._receipts = receipts
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._pump: Pump
        self._entries: dict[str, Entry] = {}
        self._queues: dict[str, deque[Entry]] = {}
        self._positions = itertools.count()
        self._message_bytes: float = math.inf
        self._stored = 0

    def __len__(self) -> int:
        """The number of messages that are safe and not acked."""
        return self._stored

    def attach(self, pump: Pump) -> None:
        """Let messages leave by this pump."""
        self._pump = pump

    def load(self, records: Iterable[OutboxRecord]) -> None:
        """Take over what an earlier process left."""
        for record in records:
            # The wall clock may have been set back since; the message has not waited less than no time.
            age = max(0.0, self._environment.wall() - record.created)
            entry = self._append(Entry(record, next(self._positions), age, self._environment))
            self._note_stored(entry)

    async def send(self, to: str, content: Mapping[str, Any], ttl: int | None) -> Handle:
        """Store a message and let it leave; the handle is returned when the message is safe."""
        record = OutboxRecord(str(uuid.uuid4()), to, content, ttl, self._environment.wall())
        entry = self._append(Entry(record, next(self._positions), 0.0, self._environment))
        entry.own = True
        if ttl == 0:
            # For now only: a later process could only give it up.
            self._note_stored(entry)
        else:
            # In a task of its own: to cancel the caller must not leave it open whether the message is sent.
            self._tasks.spawn(self._store(entry, record))
        await entry.stored
        return entry.handle

    def set_message_bytes(self, limit: float) -> None:
        """Frames that are larger are refused without being written."""
        self._message_bytes = limit

    async def before_write(self, items: Sequence[Item]) -> None:
        """Store that these messages may be written from now on; raises StorageError."""
        entries = [item for item in items if isinstance(item, Entry)]
        for entry in entries:
            if entry.ttl and entry.ttl_left() <= 0:
                self._reject(entry, _expired())
            elif len(entry.text(entry.to)) > self._message_bytes:  # One id is as long as another.
                self._reject(entry, Refused("the message is too large", TOO_LARGE))
        unmarked = [entry for entry in entries if not entry.marked and entry.ttl != 0 and entry.id in self._entries]
        if not unmarked:
            return
        try:
            await self._storage.mark_written([entry.id for entry in unmarked])
        except StorageError as error:
            self._events.emit("error", error)
            raise
        for entry in unmarked:
            entry.marked = True

    def on_ack(self, message_id: str) -> None:
        """The relay has the message."""
        entry = self._entries.get(message_id)
        if entry is None:
            return
        entry.handle.accepted.resolve(None)
        if entry.own:
            self._receipts.follow(entry.handle)
        self._remove(entry)

    def on_error(self, error: RelayError) -> bool:
        """The relay refused a message, or gave it up; False if it is none of the outbox."""
        entry = self._entries.get(error.message_id or "")
        if entry is None:
            return False
        if is_repeated(error):
            self._pump.repeat_later(entry, error)
        elif error.code == EXPIRED:
            self._reject(entry, Expired(error.message, error.code))
        else:
            self._reject(entry, Refused(error.message, error.code))
        return True

    def disconnected(self, too_large: bool) -> None:
        """The connection has ended; ``too_large``: because a frame was larger than the relay reads."""
        under_way = [entry for entry in self._entries.values() if entry.state is ItemState.WRITTEN]
        if too_large and under_way:
            largest = max(under_way, key=lambda entry: entry.size)
            self._reject(largest, Refused("the message is too large", TOO_LARGE))
        for entry in list(self._entries.values()):
            if entry.ttl == 0:
                self._reject(entry, GaveUp("the connection ended before the answer"))
            elif entry.ttl_left() <= 0 and entry.stored.done():
                self._reject(entry, _expired())

    def written_ids(self) -> list[str]:
        """The messages that the relay may have under the identity of now."""
        return [entry.id for entry in self._entries.values() if entry.written]

    def identity_lost(self, error: SealpostError) -> None:
        """Give up what may have been written: a recipient could get it twice. The storage has removed it already."""
        for entry in [entry for entry in self._entries.values() if entry.written]:
            self._reject(entry, error, in_storage=False)

    def close(self, error: SealpostError) -> None:
        """Stop following the messages; they stay in the storage."""
        for entry in self._entries.values():
            entry.handle.reject(error)
            self._cancel_timers(entry)

    def _append(self, entry: Entry) -> Entry:
        self._entries[entry.id] = entry
        self._queues.setdefault(entry.to, deque()).append(entry)
        return entry

    def _note_stored(self, entry: Entry) -> None:
        """The message is safe, and may leave."""
        self._stored += 1
        entry.stored.resolve(None)
        if entry.ttl:
            self._expire_later(entry)
        self._events.emit("unsent", len(self))
        self._offer_first(entry.to)

    async def _store(self, entry: Entry, record: OutboxRecord) -> None:
        try:
            await self._storage.put(record)
        except StorageError as error:
            self._events.emit("error", error)
            entry.stored.reject(error)
            self._drop(entry)
            return
        self._note_stored(entry)

    def _offer_first(self, to: str) -> None:
        queue = self._queues.get(to)
        if queue and queue[0].stored.done() and queue[0].state is ItemState.IDLE:
            self._pump.offer(queue[0])

    def _expire_later(self, entry: Entry) -> None:
        # Timers stand still while some systems sleep, so the time that is left is computed anew when one fires.
        left = max(0.0, min(entry.ttl_left(), 86_400.0))
        entry.expiry = self._loop.call_later(left, self._on_expiry, entry)

    def _on_expiry(self, entry: Entry) -> None:
        if entry.ttl_left() > 0:
            self._expire_later(entry)
        elif entry.state not in (ItemState.TAKEN, ItemState.WRITTEN):
            self._reject(entry, _expired())
        # Otherwise the answer of the relay decides, or the end of the connection.

    def _reject(self, entry: Entry, error: SealpostError, in_storage: bool = True) -> None:
        entry.handle.reject(error)
        self._receipts.end(entry.id)
        self._remove(entry, in_storage)
        if not entry.own:
            self._events.emit("expired", Failed(entry.id, error))

    def _remove(self, entry: Entry, in_storage: bool = True) -> None:
        self._stored -= 1
        self._drop(entry)
        if in_storage and entry.ttl != 0:
            self._tasks.spawn(self._remove_from_storage(entry.id))
        self._events.emit("unsent", len(self))

    def _drop(self, entry: Entry) -> None:
        """Forget a message, stored or not, and let the next one leave."""
        self._pump.withdraw(entry)
        self._cancel_timers(entry)
        del self._entries[entry.id]
        queue = self._queues[entry.to]
        queue.remove(entry)
        if not queue:
            del self._queues[entry.to]
        self._offer_first(entry.to)

    async def _remove_from_storage(self, message_id: str) -> None:
        try:
            await self._storage.remove(message_id)
        except StorageError as error:
            self._events.emit("error", error)

    def _cancel_timers(self, entry: Entry) -> None:
        for timer in (entry.expiry, entry.timer):
            if timer is not None:
                timer.cancel()


def _expired() -> Expired:
    return Expired("the message waited in the outbox for its ttl")
