"""The real relay: started in a directory of its own, killed, and started again on the same port and queue."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Union

from .failure import Failure
from .journal import Journal
from .ports import free_port

Setting = Union[int, float, str, bool, list[str]]
Settings = dict[str, Setting]

# Limits that would slow the kit down; scenarios that are about a limit set it.
DEFAULTS: Settings = {
    "limits.exempt_cidrs": ["127.0.0.0/8"],
    "rate_limit.messages_per_minute": 60_000,
    "rate_limit.burst": 1_000,
    "rate_limit.control_per_minute": 60_000,
    "rate_limit.resumes_per_minute": 60_000,
    "rate_limit.resume_failures_per_minute": 60_000,
    "queue.messages": 10_000,
    "queue.sender_share": 1.0,
    "queue.unknown_share": 1.0,
}
START_SECONDS = 30.0
STARTS = 5


class Relay:
    """One relay process, one after the other."""

    def __init__(self, binary: Path, directory: Path, settings: Settings, journal: Journal) -> None:
        self._binary = binary
        self._directory = directory
        self._settings: Settings = {**DEFAULTS, **settings}
        self._journal = journal
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._port: int | None = None
        self._admin = ""
        directory.mkdir(parents=True)

    @property
    def port(self) -> int:
        """Where devices connect; known after the first start, and the same from then on."""
        if self._port is None:
            raise RuntimeError("the relay has not been started yet")
        return self._port

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    async def start(self) -> None:
        """Starts the relay, and waits until it listens."""
        for _ in range(STARTS):
            port = free_port() if self._port is None else self._port
            if await self._try_start(port):
                self._port = port
                return
        raise Failure("the relay does not start: its log is in the journal")

    async def kill(self) -> None:
        """SIGKILL: the relay gets no chance to put anything in order."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """SIGTERM: the relay says goodbye to everyone."""
        await self._end(signal.SIGTERM)

    async def stop(self) -> None:
        """Ends the process, if there is one."""
        if self.running:
            await self.kill()

    def reload(self, settings: Settings) -> None:
        """Changes settings while the relay runs."""
        if self._process is None:
            raise RuntimeError("the relay does not run")
        self._settings.update(settings)
        self._write_settings()
        self._journal.note("relay", f"SIGHUP with {settings}")
        self._process.send_signal(signal.SIGHUP)

    def forget_everything(self) -> None:
        """Removes the queue of a relay that does not run: devices, tokens and messages are gone."""
        if self.running:
            raise RuntimeError("the relay runs")
        self._journal.note("relay", "its queue is removed")
        shutil.rmtree(self._directory / "data")

    async def new_access_token(self, name: str) -> str:
        """Makes an access token with the relay's own command, before the relay is started."""
        self._write_settings()
        out = await self._command("token", "new", name)
        found = [word for word in out.split() if word.startswith("sealpost_")]
        if len(found) != 1:
            raise Failure(f"`sealpost token new` printed no token: {out}")
        return found[0]

    async def operate(self, *arguments: str) -> None:
        """What an operator does to a relay that runs: a command of the relay's own command line."""
        await self._command(*arguments, "--admin-listen", self._admin)

    async def _command(self, *arguments: str) -> str:
        self._journal.note("relay", f"sealpost {' '.join(arguments)}")
        process = await asyncio.create_subprocess_exec(
            str(self._binary),
            *arguments,
            cwd=self._directory,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode != 0:
            raise Failure(f"`sealpost {' '.join(arguments)}` failed: {out.decode()}{err.decode()}")
        return out.decode()

    async def _try_start(self, port: int) -> bool:
        self._write_settings()
        self._listening = asyncio.Event()
        self._process = await asyncio.create_subprocess_exec(
            str(self._binary),
            "--listen",
            f"127.0.0.1:{port}",
            "--admin-listen",
            "127.0.0.1:0",
            cwd=self._directory,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._journal.note("relay", f"starts on port {port}")
        self._reading = asyncio.create_task(self._read_log(self._process))
        listening = asyncio.create_task(self._listening.wait())
        await asyncio.wait({listening, self._reading}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._listening.is_set():
            return True
        await self.kill()
        return False

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Copies the log to the journal until the process ends."""
        if process.stderr is None:
            raise RuntimeError("the relay was started without a pipe for its log")
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._journal.note("relay", text.partition(" ")[2] or text)
            if "health: http://" in text:
                # The last line of a start: where operators connect.
                self._admin = text.partition("health: http://")[2].partition("/")[0]
                self._listening.set()

    async def _end(self, by: signal.Signals) -> None:
        if self._process is None or self._reading is None:
            raise RuntimeError("the relay does not run")
        process, self._process = self._process, None
        self._journal.note("relay", f"gets {by.name}")
        if process.returncode is None:
            process.send_signal(by)
        await process.wait()
        await self._reading

    def _write_settings(self) -> None:
        sections: dict[str, list[str]] = {}
        for key, value in self._settings.items():
            section, name = key.split(".")
            sections.setdefault(section, []).append(f"{name} = {_toml(value)}")
        text = "\n".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
        (self._directory / "settings.toml").write_text(text, encoding="utf-8")


def _toml(value: Setting) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _environment() -> dict[str, str]:
    """The environment without the settings of another relay."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SEALPOST_") and key != "RUST_LOG"}
