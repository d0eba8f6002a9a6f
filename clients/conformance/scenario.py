"""What a scenario is, and the list of them."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Callable

from .relay import Settings
from .world import World

Run = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A name, one sentence on what it shows, the settings of its relay, and what happens."""

    name: str
    shows: str
    run: Run
    settings: Settings = field(default_factory=dict)


ALL: dict[str, Scenario] = {}


def scenario(name: str, shows: str, settings: Settings | None = None) -> Callable[[Run], Run]:
    """Puts a function on the list."""

    def add(run: Run) -> Run:
        if name in ALL:
            raise ValueError(f"there are two scenarios {name}")
        ALL[name] = Scenario(name, shows, run, settings or {})
        return run

    return add
