"""The log of one run: commands, events and faults with their times, printed when the run fails."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.3


class Journal:
    """Lines in the order in which the kit saw them."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        """Writes one line."""
        self._lines.append(f"{time.monotonic() - self._start:9.3f} {who:<8} {what}")

    async def note_pauses(self) -> None:
        """Notes when the kit itself did not run for a while: then its proxies forwarded nothing, and watchdogs may have bitten."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            pause = time.monotonic() - before - LOOK_SECONDS
            if pause > PAUSE_SECONDS:
                self.note("kit", f"did not run for {pause:.1f} s")

    def tail(self, lines: int) -> str:
        """The last lines; says how many come before them."""
        left_out = len(self._lines) - lines
        head = [f"… {left_out} lines before"] if left_out > 0 else []
        return "\n".join(head + self._lines[-lines:])

    def save(self, path: Path) -> None:
        """Writes all lines to a file."""
        path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
