"""How long to wait before the next attempt, and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from .events import StateName
from .frames import RegistrationRefused
from .settings import Backoff
from .transport import DialFailed, SocketClosed

#: A connection that was registered for this number of seconds ends a series of failed attempts.
SETTLED_AFTER = 60.0
#: The first wait after a restart of the relay is a random time up to this one.
RESTART_SPREAD = 10.0
#: Close codes after which a person should look before anything is tried again.
FINAL_CLOSE_CODES = (1002, 1003, 1007, 1008, 4403)
RESTARTING, TOO_LARGE, REPLACED = 1001, 1009, 4409
#: Answers to Register after which another attempt would get the same answer.
FINAL_REGISTER_CODES = (400, 401, 403)


@dataclass(frozen=True)
class Ending:
    """Why a connection ended, or never came about, and what follows from it."""

    reason: str
    state: StateName = "offline"
    #: False: the client tries nothing by itself.
    retry: bool = True
    #: Seconds to wait first, before the back-off begins.
    first: float = 0.0
    #: Seconds that the wait must have at least.
    at_least: float = 0.0


class Waits:
    """The series of waits: full jitter."""

    def __init__(self, settings: Backoff, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random
        self._attempt = 0

    def connection_lasted(self, seconds: float) -> None:
        """A registered connection has ended."""
        if seconds >= SETTLED_AFTER:
            self._attempt = 0

    def next(self, ending: Ending) -> float:
        """The wait before the next attempt, in seconds."""
        # The power is bounded, for a fleet may be offline for weeks and 2.0 ** 1024 is no number.
        longest = min(self._settings.max, self._settings.base * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return max(ending.first + self._random() * longest, ending.at_least)

    def after_close(self, closed: SocketClosed, replaced: bool) -> Ending:
        """What follows from the end of a connection; ``replaced``: an Error said so before."""
        reason = closed.reason or f"the relay closed the connection ({closed.code})"
        if closed.code == REPLACED or replaced:
            return Ending("another connection took up this device", state="replaced", retry=False)
        if closed.code in FINAL_CLOSE_CODES:
            return Ending(reason, retry=False)
        if closed.code == RESTARTING:
            return Ending(reason, at_least=self._random() * RESTART_SPREAD * self._settings.scale)
        return Ending(reason)

    def after_refused_dial(self, failed: DialFailed) -> Ending:
        """What follows from a connection that did not come about."""
        if failed.retry_after is None:
            return Ending(str(failed))
        # A random part of the same size more: this client is not the only one that waits.
        return Ending(str(failed), at_least=failed.retry_after * (1 + self._random()))

    def after_refused_register(self, refused: RegistrationRefused) -> Ending:
        """What follows from an Error in answer to Register."""
        error = refused.error
        if error.code in FINAL_REGISTER_CODES:
            return Ending(error.message, retry=False)
        return Ending(error.message, first=error.retry_after or 0.0)
