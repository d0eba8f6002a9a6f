"""The commands, as processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import sealpost
from sealpost import connect
from tests.support.relay_process import RelayProcess

from .conftest import StartRelay

NOBODY = "00000000-0000-4000-8000-00000000dead"
SOURCE = Path(sealpost.__file__).parents[1]


class Command:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def type(self, text: str) -> None:
        """Write to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def line(self) -> str:
        """The next line of its stdout."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def event(self, kind: str) -> dict[str, Any]:
        """The next line with this event."""
        while True:
            line = await self.line()
            assert line, f"it ended before {kind}: {await self.end()}"
            event: dict[str, Any] = json.loads(line)
            if event["event"] == kind:
                return event

    async def error_line(self) -> str:
        """The next line of its stderr."""
        assert self._process.stderr is not None
        return (await self._process.stderr.readline()).decode()

    async def end(self) -> tuple[int, str, str]:
        """Close its stdin, and wait for its exit status and what it wrote."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        output, errors = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, output.decode(), errors.decode()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def stop(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.end()


class Shell:
    """Starts commands, in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._commands: list[Command] = []

    async def start(self, *arguments: str, **environment: str) -> Command:
        """Start a command."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            "-m",
            "sealpost",
            *arguments,
            cwd=self._directory,
            env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._commands.append(Command(process))
        return self._commands[-1]

    async def run(self, *arguments: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
        """Run a command to its end."""
        command = await self.start(*arguments, **environment)
        command.type(stdin)
        return await command.end()

    async def stop(self) -> None:
        """End all commands."""
        for command in self._commands:
            await command.stop()


def events(output: str) -> dict[str, dict[str, Any]]:
    """The last event of each kind."""
    return {event["event"]: event for event in map(json.loads, output.splitlines())}


@pytest_asyncio.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    await shell.stop()


async def test_a_text_travels_from_send_to_listen(relay: RelayProcess, shell: Shell) -> None:
    listening = await shell.start("listen", relay.url, "--storage", "bob.db", "--count", "2", "--json")
    bob = (await listening.event("registered"))["device_id"]
    status, output, errors = await shell.run("send", relay.url, bob, "hello", "--wait-for", "processed")
    assert (status, output) == (0, "")
    assert errors.startswith("you are ")
    first = await listening.event("message")
    assert first["text"] == "hello"
    status, output, _ = await shell.run("send", relay.url, bob, "-", "--json", stdin="über\nzwei Zeilen\n")
    assert status == 0
    assert "accepted" in events(output)
    assert (await listening.event("message"))["text"] == "über\nzwei Zeilen\n"
    status, _, errors = await listening.end()
    assert (status, errors) == (0, "")


async def test_lines_for_people(relay: RelayProcess, shell: Shell) -> None:
    listening = await shell.start("listen", relay.url, "--storage", "bob.db")
    bob = (await listening.error_line()).split()[-1]
    async with connect(relay.url) as alice:
        own = await alice.registered()
        await alice.send(bob, "one\x1b[31m\ntwo: three")
        assert await listening.line() == f"{own}: one\ufffd[31m\n"
        assert await listening.line() == "    two: three\n"
    listening.signal(signal.SIGTERM)
    status, _, _ = await listening.end()
    assert status == 0


async def test_what_was_printed_does_not_come_again(relay: RelayProcess, shell: Shell) -> None:
    listening = await shell.start("listen", relay.url, "--storage", "bob.db", "--count", "1", "--json")
    bob = (await listening.event("registered"))["device_id"]
    async with connect(relay.url) as alice:
        first = await alice.send(bob, "first")
        assert (await listening.event("message"))["text"] == "first"
        assert (await listening.end())[0] == 0
        await first.accepted
        await alice.send(bob, "second")
        listening = await shell.start("listen", relay.url, "--storage", "bob.db", "--count", "1", "--json")
        assert (await listening.event("message"))["text"] == "second"


async def test_a_reader_that_goes_ends_listen(relay: RelayProcess, shell: Shell, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sealpost", "listen", relay.url, "--storage", "bob.db"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    assert process.stderr is not None
    bob = (await process.stderr.readline()).decode().split()[-1]
    os.close(reading)
    async with connect(relay.url) as alice:
        await alice.send(bob, "nobody reads this")
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        listening = await shell.start("listen", relay.url, "--storage", "bob.db", "--count", "1")
        assert (await listening.line()).endswith("nobody reads this\n"), "what was not printed comes again"


@pytest.mark.parametrize(
    ("arguments", "expected", "reason"),
    [
        ((NOBODY, "hello"), 1, "refused: Unknown recipient."),
        (("bob", "hello"), 2, "is not the id of a device"),
        ((NOBODY, "hello", "--ttl", "-1"), 2, "invalid"),
        ((NOBODY, "hello", "--access-token-file", "missing"), 2, "No such file"),
    ],
)
async def test_exit_statuses_of_send(
    relay: RelayProcess, shell: Shell, arguments: tuple[str, ...], expected: int, reason: str
) -> None:
    status, output, errors = await shell.run("send", relay.url, *arguments)
    assert (status, output) == (expected, "")
    assert reason in errors


async def test_a_text_that_expires(relay: RelayProcess, shell: Shell) -> None:
    async with connect(relay.url) as bob:
        to = await bob.registered()
    status, output, _ = await shell.run("send", relay.url, to, "hello", "--ttl", "0", "--json")
    failed = events(output)["failed"]
    assert (status, failed["error"], failed["code"]) == (3, "expired", 410)


async def test_a_text_that_could_not_leave_leaves_next_time(relay: RelayProcess, shell: Shell) -> None:
    async with connect(relay.url) as bob:
        to = await bob.registered()
        await relay.stop()
        send = ("send", relay.url, to, "--storage", "alice.db", "--timeout")
        status, _, errors = await shell.run(*send, "0.5", "kept")
        assert status == 4
        assert "it took longer than 0.5 s" in errors
        assert "the message stays in alice.db" in errors
        texts: asyncio.Queue[str] = asyncio.Queue()

        @bob.on_message
        async def take(message: sealpost.Message) -> None:
            texts.put_nowait(message.data)

        await relay.start()
        assert (await shell.run(*send, "60", "fresh"))[0] == 0
        assert [await texts.get(), await texts.get()] == ["kept", "fresh"]


async def test_wrong_usage(relay: RelayProcess, shell: Shell) -> None:
    status, _, errors = await shell.run("listen", "http://127.0.0.1/")
    assert status == 2
    assert "is not the address of a relay" in errors
    assert "Traceback" not in errors
    status, _, errors = await shell.run("listen", relay.url, "--storage", "no/such/directory/file")
    assert status == 4
    assert "storage: " in errors
    assert "Traceback" not in errors


async def test_access_tokens(start_relay: StartRelay, shell: Shell, tmp_path: Path) -> None:
    relay = await start_relay()
    token = (await relay.command("token", "new", "fleet")).split()[-1]
    await relay.stop()
    relay.set(access__mode="tokens")
    await relay.start()
    (tmp_path / "token").write_text(token + "\n")
    send = ("send", relay.url, NOBODY, "hello")
    for arguments, environment in (
        (("--access-token-file", "token"), {}),
        ((), {"SEALPOST_ACCESS_TOKEN": token}),
        (("--access-token", token), {}),
    ):
        status, _, errors = await shell.run(*send, *arguments, **environment)
        assert (status, "Unknown recipient" in errors) == (1, True)
    for command in (send, ("listen", relay.url)):
        running = await shell.start(*command)
        while "access token is needed" not in await running.error_line():
            pass
        assert (await running.end())[0] == 4


async def test_chat(relay: RelayProcess, shell: Shell) -> None:
    bob = await shell.start("chat", relay.url)
    bobs_id = (await bob.error_line()).split()[-1]
    bob.type("to nobody\n")
    assert "nobody has written yet" in await bob.error_line()
    alice = await shell.start("chat", relay.url, bobs_id)
    alices_id = (await alice.error_line()).split()[-1]
    alice.type("hello\n")
    assert await bob.line() == f"{alices_id}: hello\n"
    assert await bob.error_line() == f"lines go to {alices_id} from now on\n"
    bob.type("hello yourself\n")
    assert await alice.line() == f"{bobs_id}: hello yourself\n"
    assert (await alice.end())[0] == 0
    bob.type("anybody there?\n")
    status, _, errors = await bob.end()
    assert status == 1, "alice had no storage, so her device has ended with her command"
    assert "refused: Unknown recipient." in errors


async def test_two_processes_do_not_share_a_storage(relay: RelayProcess, shell: Shell) -> None:
    first = await shell.start("listen", relay.url, "--storage", "bob.db", "--json")
    await first.event("registered")
    status, _, errors = await shell.run("listen", relay.url, "--storage", "bob.db")
    assert status == 4
    assert "is in use by another process" in errors
