"""The real relay, as a process of the test."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[4]
LISTENING = re.compile(rb"is listening on (\S+)")


def relay_binary() -> Path:
    """The relay to test against; a clear failure where there is none."""
    named = os.environ.get("SEALPOST_BIN")
    path = Path(named) if named else REPOSITORY / "target" / "release" / "sealpost"
    assert path.is_file(), f"there is no relay at {path}: build it with `cargo build --release`, or set SEALPOST_BIN"
    return path.resolve()


class RelayProcess:
    """A relay in a directory of its own, on a free port that it keeps when it is started again."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self._directory = directory
        self._environment = {name: value for name, value in os.environ.items() if name != "SEALPOST_BIN"}
        self.set(**settings)
        self._address = "127.0.0.1:0"
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where devices connect."""
        return f"ws://{self._address}/ws"

    def set(self, **settings: str) -> None:
        """Change settings for the next start; `section__key` as the relay reads them from its environment."""
        self._environment.update({f"SEALPOST__{name.upper()}": value for name, value in settings.items()})

    async def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            relay_binary(),
            "--listen",
            self._address,
            "--admin-listen",
            "127.0.0.1:0",
            cwd=self._directory,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        said = b""
        while not (found := LISTENING.search(said)):
            line = await self._process.stdout.readline()
            assert line, f"the relay did not start: {said.decode()}"
            said += line
        self._address = found[1].decode()
        self._log = asyncio.ensure_future(self._drain(self._process.stdout))

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for the end."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(number)
        await process.wait()
        if self._log is not None:
            await self._log

    async def command(self, *arguments: str) -> str:
        """Run a command of the relay's binary in the same directory."""
        process = await asyncio.create_subprocess_exec(
            relay_binary(), *arguments, cwd=self._directory, env=self._environment, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output
        return output.decode()

    @staticmethod
    async def _drain(stream: asyncio.StreamReader) -> None:
        while await stream.readline():
            pass
