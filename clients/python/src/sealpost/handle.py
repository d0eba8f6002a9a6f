"""What the application holds of a message that it sent."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from .errors import SealpostError

T = TypeVar("T")


class Outcome(Generic[T]):
    """An awaitable that may be awaited any number of times, also by several tasks.

    To cancel a task that awaits it changes nothing but that task, and a failure that nobody awaits is silent.
    """

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []
        self._done = False
        self._result: T | None = None
        self._error: SealpostError | None = None

    def done(self) -> bool:
        """Whether the outcome is known, good or bad."""
        return self._done

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                yield from waiter
            finally:
                self._waiters.remove(waiter)
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._result  # type: ignore[return-value]

    def resolve(self, result: T) -> None:
        """Settle the outcome as good, if it is still open."""
        self._settle(result, None)

    def reject(self, error: SealpostError) -> None:
        """Settle the outcome as bad, if it is still open."""
        self._settle(None, error)

    def _settle(self, result: T | None, error: SealpostError | None) -> None:
        if self._done:
            return
        self._done, self._result, self._error = True, result, error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Handle:
    """A message that was sent, with what becomes of it.

    * ``await handle.accepted``: the relay has the message.
    * ``await handle.delivered``: the recipient has it.
    * ``await handle.processed``: the last status: ``"processed"``, or ``"delivered"`` where the recipient confirms
      nothing.

    Each raises :class:`Expired`, :class:`Refused` or :class:`GaveUp` instead where it fails.
    """

    def __init__(self, message_id: str, to: str) -> None:
        self.id = message_id
        self.to = to
        self.accepted: Outcome[None] = Outcome()
        self.delivered: Outcome[None] = Outcome()
        self.processed: Outcome[str] = Outcome()

    def __repr__(self) -> str:
        return f"Handle(id={self.id!r}, to={self.to!r})"

    def note_status(self, status: str) -> None:
        """Take over a receipt; both statuses are the last word of the relay."""
        self.delivered.resolve(None)
        self.processed.resolve(status)

    def reject(self, error: SealpostError) -> None:
        """Reject what is still open."""
        self.accepted.reject(error)
        self.delivered.reject(error)
        self.processed.reject(error)
