"""Settings of a client, with the figures of the protocol as defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits between attempts to connect, in seconds: a random time up to ``base`` × 2ⁿ, at most ``max``."""

    base: float = 1.0
    max: float = 60.0

    @property
    def scale(self) -> float:
        """How the other waits of the client relate to their defaults."""
        return self.base / 1.0


@dataclass(frozen=True)
class Watchdog:
    """A connection without a frame for ``ping`` seconds is asked, and dropped ``timeout`` seconds later."""

    ping: float = 30.0
    timeout: float = 10.0
