"""What a client tells its application beside the answers to calls."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Callable, Literal, overload

from .errors import SealpostError

logger = logging.getLogger("sealpost")

StateName = Literal["connecting", "online", "offline", "replaced", "closed"]


@dataclass(frozen=True)
class State:
    """Where the connection stands."""

    name: StateName
    #: Why the client is offline, replaced or closed, in words.
    reason: str = ""
    #: Seconds from the change of state to the next attempt; None: no attempt by itself.
    next_attempt: float | None = None


@dataclass(frozen=True)
class Registered:
    """The relay has answered a Register."""

    device_id: str
    resumed: bool


@dataclass(frozen=True)
class IdentityLost:
    """The relay no longer knows this device; the client registers afresh, under another id."""

    device_id: str


@dataclass(frozen=True)
class Receipt:
    """News of a message that an earlier process sent: queued, delivered or processed."""

    message_id: str
    status: str


@dataclass(frozen=True)
class Failed:
    """The end of a message that an earlier process sent."""

    message_id: str
    error: SealpostError


@dataclass(frozen=True)
class HandlerError:
    """A handler raised; the same message is handed over again later."""

    sender: str
    message_id: str
    error: Exception


@dataclass(frozen=True)
class Authenticated:
    """A device that began an authentication, and this one, trust each other."""

    peer: str


class Emitter:
    """Listeners by the name of the event."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}

    @overload
    def on(self, event: Literal["state"], listener: Callable[[State], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["registered"], listener: Callable[[Registered], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["unsent"], listener: Callable[[int], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["identity_lost"], listener: Callable[[IdentityLost], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["receipt"], listener: Callable[[Receipt], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["expired"], listener: Callable[[Failed], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["handler_error"], listener: Callable[[HandlerError], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["authenticated"], listener: Callable[[Authenticated], None]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["error"], listener: Callable[[SealpostError], None]) -> Callable[[], None]: ...

    def on(self, event: str, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Call ``listener`` with each event of this name; the function that is returned ends it."""
        if event not in EVENTS:
            raise ValueError(f"unknown event {event!r}: one of {', '.join(EVENTS)}")
        listeners = self._listeners.setdefault(event, [])
        listeners.append(listener)

        def remove() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return remove

    def emit(self, event: str, value: Any) -> None:
        """Call the listeners; one that raises does not keep the others from being called."""
        for listener in list(self._listeners.get(event, ())):
            try:
                listener(value)
            except Exception:
                logger.exception("a listener for the event %s raised", event)


EVENTS = (
    "state",
    "registered",
    "unsent",
    "identity_lost",
    "receipt",
    "expired",
    "handler_error",
    "authenticated",
    "error",
)
