"""Which refusals are answered with the same frame again, and when."""

from __future__ import annotations

from .frames import RelayError

RATE_LIMITED = 429
EXPIRED = 410
TOO_LARGE = 413
#: The first wait where the relay names none, and the longest; each wait is twice the one before.
FIRST_WAIT, LONGEST_WAIT = 30.0, 600.0


def is_repeated(error: RelayError) -> bool:
    """Whether the same frame may pass later."""
    return error.code in (401, RATE_LIMITED, 503, 507) or (error.code == 403 and error.limit == "queued_bytes")


def wait_before_repeat(error: RelayError | None, refusals: int, scale: float) -> float:
    """Seconds until the frame leaves again, after ``refusals`` earlier ones."""
    if error is not None and error.retry_after is not None:
        return error.retry_after
    return min(LONGEST_WAIT, FIRST_WAIT * scale * 2.0 ** min(refusals, 32))
