"""The process of a client's driver: JSON lines in, JSON lines out, and SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
from dataclasses import dataclass
from typing import Callable

from .bell import Bell
from .failure import Failure
from .journal import Journal

LINE_LIMIT = 4 * 1024 * 1024
# How long a driver may take to end after its input has ended.
END_SECONDS = 20.0


@dataclass(frozen=True)
class Event:
    """One line of a driver."""

    kind: str
    fields: dict[str, object]

    def text(self, name: str) -> str:
        """A field that is a string."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise ValueError(f"event {self.kind}: {name} must be a string, not {value!r}")
        return value

    def number(self, name: str) -> int:
        """A field that is a whole number."""
        value = self.fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"event {self.kind}: {name} must be a whole number, not {value!r}")
        return value

    def optional_text(self, name: str) -> str | None:
        """A field that is a string, or is not there."""
        return None if self.fields.get(name) is None else self.text(name)

    def optional_number(self, name: str) -> int | None:
        """A field that is a whole number, or is not there."""
        return None if self.fields.get(name) is None else self.number(name)


def parse(line: str) -> Event:
    """Reads one line of a driver."""
    decoded = json.loads(line)
    if not isinstance(decoded, dict) or not isinstance(decoded.get("event"), str):
        raise ValueError("a line must be a JSON object with the name of the event as `event`")
    return Event(decoded["event"], decoded)


class Driver:
    """One process of one device."""

    def __init__(self, name: str, journal: Journal, bell: Bell, on_event: Callable[[Event], None]) -> None:
        self._name = name
        self._journal = journal
        self._bell = bell
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._reading: list[asyncio.Task[None]] = []
        self._ending = False

    async def start(self, command: str, environment: dict[str, str]) -> None:
        """Starts the process, in a group of its own: a wrapper around the client is killed with it."""
        self._journal.note(self._name, "driver starts")
        self._process = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,
        )
        self._reading = [asyncio.create_task(self._read_events()), asyncio.create_task(self._read_errors())]

    def command(self, name: str, **fields: object) -> None:
        """Writes one command."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError(f"{self._name}: the driver does not run")
        given = {key: value for key, value in fields.items() if value is not None}
        line = json.dumps({"command": name, **given})
        self._journal.note(self._name, f"< {line[:300]}")
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode() + b"\n")

    async def kill(self) -> None:
        """SIGKILL; what the process wrote before is still read."""
        process = self._must_run()
        self._ending = True
        self._journal.note(self._name, "driver is killed")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await self._ended(process)

    async def finish(self) -> None:
        """Ends the input, upon which a driver ends by itself; kills one that does not."""
        process = self._must_run()
        self._ending = True
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            await self.kill()
            raise Failure(f"{self._name}: the driver did not end when its input had ended") from None
        await self._ended(process)

    def _must_run(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._name}: the driver does not run")
        return self._process

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        await asyncio.gather(*self._reading)
        self._process = None

    async def _read_events(self) -> None:
        process = self._must_run()
        if process.stdout is None:
            raise RuntimeError("the driver was started without a pipe for its events")
        try:
            while True:
                line = await process.stdout.readline()
                # Half a line is what a killed process was writing.
                if not line.endswith(b"\n"):
                    break
                text = line.decode()
                self._journal.note(self._name, f"> {text.rstrip()[:300]}")
                self._on_event(parse(text))
                self._bell.ring()
        except ValueError as error:
            self._bell.break_off(f"{self._name}: the driver broke its protocol: {error}")
        if not self._ending:
            self._bell.break_off(f"{self._name}: the driver ended by itself")

    async def _read_errors(self) -> None:
        process = self._must_run()
        if process.stderr is None:
            raise RuntimeError("the driver was started without a pipe for its errors")
        while True:
            line = await process.stderr.readline()
            if not line:
                return
            self._journal.note(self._name, f"! {line.decode(errors='replace').rstrip()[:500]}")
