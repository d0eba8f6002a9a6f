"""The fixed scenarios; importing this package puts them on the list."""

from __future__ import annotations

from ..scenario import ALL
from . import (
    access,
    authentication,
    clocks,
    connections,
    cuts,
    expiry,
    handlers,
    identity,
    limits,
    processes,
    relay_ends,
    rotation,
    talk,
)

__all__ = [
    "ALL",
    "access",
    "authentication",
    "clocks",
    "connections",
    "cuts",
    "expiry",
    "handlers",
    "identity",
    "limits",
    "processes",
    "relay_ends",
    "rotation",
    "talk",
]
