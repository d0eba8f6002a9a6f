"""The token bucket."""

from __future__ import annotations

import pytest

from sealpost.pacing import Pacing


def bucket(per_minute: float = 60, burst: float = 60) -> Pacing:
    pacing = Pacing(0)
    pacing.set_limits(per_minute, burst, 0)
    pacing.fill(0)
    return pacing


def take_all(pacing: Pacing, now: float) -> int:
    taken = 0
    while pacing.wait(now) == 0:
        pacing.take(now)
        taken += 1
    return taken


def test_it_gives_nine_tenths_of_the_burst() -> None:
    assert take_all(bucket(), 0) == 54


def test_it_fills_at_nine_tenths_of_the_rate() -> None:
    pacing = bucket()
    take_all(pacing, 0)
    assert pacing.wait(0) == pytest.approx(1 / 0.9)
    assert take_all(pacing, 10) == 9
    assert take_all(pacing, 10_000) == 54


def test_it_always_gives_one() -> None:
    assert take_all(bucket(per_minute=1, burst=1), 0) == 1


def test_lower_limits_count_at_once() -> None:
    pacing = bucket()
    pacing.set_limits(60, 10, 0)
    assert take_all(pacing, 0) == 9


def test_a_refusal_empties_it() -> None:
    pacing = bucket()
    pacing.set_tokens(0, 0)
    assert pacing.wait(0) == pytest.approx(1 / 0.9)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    pacing = bucket()
    take_all(pacing, 100)
    assert take_all(pacing, 50) == 0
