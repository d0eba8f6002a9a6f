"""The commands of the command line: listen, send, chat."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Callable

from .client import Client
from .connecting import connect
from .console import Console
from .errors import Expired, GaveUp, Refused, SealpostError
from .frames import device_id
from .handle import Handle
from .inbox import Message
from .storage import MemoryStorage, SqliteStorage

OK, REFUSED, USAGE, EXPIRED, GAVE_UP = range(5)
#: How long the end of a device without a storage may take.
GOODBYE = 3.0


@dataclass(frozen=True)
class Settings:
    """What all commands have in common."""

    url: str
    console: Console
    storage: str | None
    access_token: str | None


async def listen(settings: Settings, count: int | None) -> int:
    """Print messages, all or as many as ``count`` says."""
    async with _connected(settings) as client:
        left = count
        enough = asyncio.Event()

        @client.on_message
        async def print_message(message: Message) -> None:
            nonlocal left
            _print(message, settings.console, enough)
            if left is not None:
                left -= 1
                if left == 0:
                    enough.set()

        return await _until_stopped(client, settings.console, enough.wait())


async def send(settings: Settings, to: str, text: str, wait_for: str, ttl: int | None, timeout: float) -> int:
    """Send one text, and wait for an outcome."""
    async with _connected(settings) as client:
        message_id = None
        try:
            if ttl == 0:
                await _in_time(client.registered(), timeout)
            handle = await client.send(to, text, ttl=ttl)
            message_id = handle.id
            await _in_time(_outcome(client, handle, wait_for), timeout)
        except SealpostError as error:
            settings.console.failure(error, message_id)
            if isinstance(error, GaveUp) and client.unsent and settings.storage:
                settings.console.hint(f"the message stays in {settings.storage}, and leaves when that is used again")
            return _status(error)
        settings.console.outcome(wait_for, handle.id)
        return OK


async def chat(settings: Settings, to: str | None) -> int:
    """Send lines of stdin to a device, and print what comes."""
    async with _connected(settings) as client:
        peer = to
        nobody_reads = asyncio.Event()
        sending: set[asyncio.Task[None]] = set()
        failed: list[SealpostError] = []

        @client.on_message
        async def print_message(message: Message) -> None:
            nonlocal peer
            _print(message, settings.console, nobody_reads)
            if peer is None:
                peer = message.sender
                settings.console.hint(f"lines go to {peer} from now on")

        async def report(handle: Handle) -> None:
            try:
                await handle.accepted
            except SealpostError as error:
                failed.append(error)
                settings.console.failure(error, handle.id)
            else:
                settings.console.outcome("accepted", handle.id)

        async def talk() -> None:
            async for line in _lines_of_stdin():
                if peer is None:
                    settings.console.hint("nobody has written yet: name a device, chat URL TO")
                elif line:
                    task = asyncio.ensure_future(report(await client.send(peer, line)))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
            if sending:
                await asyncio.wait(sending)

        status = await _until_stopped(client, settings.console, talk(), nobody_reads.wait())
        for task in sending:
            task.cancel()
        return status or (_status(failed[-1]) if failed else OK)


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Client]:
    storage = SqliteStorage(settings.storage) if settings.storage else MemoryStorage()
    async with connect(settings.url, access_token=settings.access_token, storage=storage) as client:
        client.on("state", settings.console.state)
        client.on("registered", lambda registered: settings.console.registered(registered.device_id))
        client.on("error", settings.console.failure)
        yield client
        if settings.storage is None and client.state.name == "online":
            # Nobody can be this device again; without this it would take a place at the relay for days.
            with contextlib.suppress(SealpostError):
                await _in_time(client.unregister(), GOODBYE)


def _print(message: Message, console: Console, nobody_reads: asyncio.Event) -> None:
    """Print a message; where nobody reads any more, it is not handled, and comes again."""
    try:
        console.message(message)
    except BrokenPipeError:
        nobody_reads.set()
        raise


async def _until_stopped(client: Client, console: Console, *works: Awaitable[object]) -> int:
    """Wait for the first of ``works``, or for the end of all attempts to connect."""
    ending = asyncio.ensure_future(_end_of_attempts(client))
    tasks = [ending, *map(asyncio.ensure_future, works)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if ending in done:
            console.failure(GaveUp(client.state.reason))
            return GAVE_UP
        for task in done:
            task.result()
        return OK
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end_of_attempts(client: Client) -> None:
    changed = asyncio.Event()
    remove = client.on("state", lambda _: changed.set())
    try:
        while client.state.name not in ("offline", "replaced") or client.state.next_attempt is not None:
            changed.clear()
            await changed.wait()
    finally:
        remove()


async def _outcome(client: Client, handle: Handle, wait_for: str) -> None:
    """Wait for an outcome; GaveUp where nothing more is tried."""
    if not handle.accepted.done():
        await client.registered()
    outcomes: dict[str, Callable[[], Awaitable[object]]] = {
        "accepted": lambda: handle.accepted,
        "delivered": lambda: handle.delivered,
        "processed": lambda: handle.processed,
    }
    await outcomes[wait_for]()


async def _in_time(work: Awaitable[object], seconds: float) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        raise GaveUp(f"it took longer than {seconds:g} s") from None


def _status(error: SealpostError) -> int:
    if isinstance(error, Refused):
        return REFUSED
    return EXPIRED if isinstance(error, Expired) else GAVE_UP


async def _lines_of_stdin() -> AsyncIterator[str]:
    """The lines; read in a thread, because stdin may be a file, a pipe or a terminal."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def put(line: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def read() -> None:
        for line in sys.stdin:
            put(line.rstrip("\r\n"))
        put(None)

    threading.Thread(target=read, name="sealpost-stdin", daemon=True).start()
    while True:
        line = await lines.get()
        if line is None:
            return
        yield line


__all__ = ["GAVE_UP", "OK", "USAGE", "Settings", "chat", "device_id", "listen", "send"]
