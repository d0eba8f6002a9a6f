"""What this device says of itself: online, away or offline."""

from __future__ import annotations

from typing import Literal

from .flow import FlowFrame
from .frames import RelayError
from .pump import Pump

StatusName = Literal["Online", "Away", "Offline"]
STATUSES = ("Online", "Away", "Offline")


class Presence:
    """Says the status when it changes, and on each new connection, which begins with Online."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._status: StatusName = "Online"
        self._frame: FlowFrame | None = None

    def set(self, status: StatusName, connected: bool) -> None:
        """Change the status."""
        if status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}, not {status!r}")
        self._status = status
        if connected:
            self._say()

    def connected(self) -> None:
        """A connection is registered."""
        if self._status != "Online":
            self._say()
        elif self._frame is not None:
            self._pump.withdraw(self._frame)

    def on_rate_limited(self, error: RelayError) -> None:
        """The relay refused a frame without a name: only a Status is one."""
        if self._frame is not None:
            self._pump.repeat_later(self._frame, error)

    def _say(self) -> None:
        if self._frame is not None:
            self._pump.withdraw(self._frame)
        status = self._status
        self._frame = FlowFrame("Status", lambda device_id: {"device_id": device_id, "status": status})
        self._pump.offer(self._frame)
