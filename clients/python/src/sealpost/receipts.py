"""What becomes of messages after the relay has acked them."""

from __future__ import annotations

from .errors import Expired, SealpostError
from .events import Emitter, Failed, Receipt
from .handle import Handle
from .refusals import EXPIRED

FINAL_STATUSES = ("delivered", "processed")
#: Messages whose end is remembered, because the relay may report it twice.
REMEMBERED_ENDS = 10_000


class Receipts:
    """Handles that wait for the last word of the relay."""

    def __init__(self, events: Emitter) -> None:
        self._events = events
        self._open: dict[str, Handle] = {}
        self._ended: dict[str, None] = {}

    def follow(self, handle: Handle) -> None:
        """Report to ``handle`` what comes."""
        self._open[handle.id] = handle

    def on_status(self, message_id: str, status: str | None) -> None:
        """A receipt came. A bare ``queued`` says nothing that the first Ack has not said."""
        if status is None or message_id in self._ended:
            return
        handle = self._open.get(message_id)
        if handle is None:
            self._events.emit("receipt", Receipt(message_id, status))
        elif status in FINAL_STATUSES:
            handle.note_status(status)
        if status in FINAL_STATUSES:
            self.end(message_id)

    def on_expired(self, message_id: str, reason: str) -> None:
        """The relay gave up a message that it had acked."""
        if message_id in self._ended:
            return
        handle = self._open.get(message_id)
        self.end(message_id)
        if handle is None:
            self._events.emit("expired", Failed(message_id, Expired(reason, EXPIRED)))
        else:
            handle.reject(Expired(reason, EXPIRED))

    def end(self, message_id: str) -> None:
        """Nothing is expected of this message any more."""
        self._open.pop(message_id, None)
        self._ended[message_id] = None
        if len(self._ended) > REMEMBERED_ENDS:
            del self._ended[next(iter(self._ended))]

    def reject_all(self, error: SealpostError) -> None:
        """No news can come any more."""
        for handle in list(self._open.values()):
            handle.reject(error)
        self._open.clear()
