"""The allowance of the device, as a token bucket."""

from __future__ import annotations

#: Share of the told limits that is used, so that clocks that differ a little cause no refusal.
SHARE = 0.9


class Pacing:
    """Says when the next frame may leave. Times are seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._rate = 1.0
        self._capacity = 1.0
        self._tokens = 1.0
        self._counted_at = now

    def set_limits(self, per_minute: float, burst: float, now: float) -> None:
        """Take over the limits of a RegisterResponse."""
        self._refill(now)
        self._rate = per_minute / 60 * SHARE
        self._capacity = max(1.0, burst * SHARE)
        self._tokens = min(self._tokens, self._capacity)

    def set_tokens(self, tokens: float, now: float) -> None:
        """Correct what is left, because the relay is known to count otherwise."""
        self._tokens = min(tokens, self._capacity)
        self._counted_at = now

    def fill(self, now: float) -> None:
        """A fresh device has its whole burst."""
        self.set_tokens(self._capacity, now)

    def wait(self, now: float) -> float:
        """Seconds until a token is there; 0 if there is one."""
        self._refill(now)
        # A hair below one whole token counts as one: sums of fractions do not come out even.
        missing = 1 - 1e-9 - self._tokens
        return max(0.0, missing / self._rate)

    def take(self, now: float) -> None:
        """Use a token; to be called after :meth:`wait` said 0."""
        self._refill(now)
        self._tokens = max(0.0, self._tokens - 1)

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._counted_at)
        if elapsed > 0:
            self._tokens = min(self._capacity, self._tokens + elapsed * self._rate)
        self._counted_at = now
