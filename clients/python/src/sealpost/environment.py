"""What a client takes from the world around it; tests give it another one."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Callable

from .transport import Dial, dial


def _uptime() -> float:
    """Seconds of a clock that nobody sets and that, where the system has one, goes on while the system sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True)
class Environment:
    """Clocks, chance and the network. Timers are those of the event loop."""

    dial: Dial = dial
    #: From 0 to 1.
    random: Callable[[], float] = random.random
    #: Unix seconds.
    wall: Callable[[], float] = time.time
    uptime: Callable[[], float] = _uptime
