"""The ways in which a message or a flow can fail."""

from __future__ import annotations


class SealpostError(Exception):
    """The base of all errors of this package."""


class Expired(SealpostError):
    """The message, or the new key, did not reach its recipient in time.

    ``code`` is 410 where the relay says so, or None where it expired before it left.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class Refused(SealpostError):
    """The relay or the other device refused; a repeat would be refused again.

    ``code`` is the code of the protocol, or None where the other device does not trust this one.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class GaveUp(SealpostError):
    """The client stopped without knowing the outcome; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Closed(GaveUp):
    """The client was closed. A message that was not accepted stays in the outbox, and goes out next time."""

    def __init__(self) -> None:
        super().__init__("the client was closed")


class StorageError(SealpostError):
    """The storage did not carry out a read or a write."""
