"""The relay's side of a conversation, spoken by a test."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from sealpost.client import Client
from sealpost.environment import Environment
from sealpost.options import Options
from sealpost.storage import MemoryStorage, Storage
from sealpost.transport import DialFailed, Socket, SocketClosed

from .virtual_time import now

ALICE = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
BOB = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
CAROL = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
TOKEN = "9c0f4a6d7be28153"
EPOCH = 1_700_000_000.0


class FakeSocket:
    """One connection; the methods of the second half are the test's."""

    def __init__(self) -> None:
        self._to_client: asyncio.Queue[str | SocketClosed] = asyncio.Queue()
        self._from_client: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._ended: SocketClosed | None = None
        self.closed_by_client = False
        self.aborted = False

    async def send(self, text: str) -> None:
        if self._ended is not None:
            raise self._ended
        self._from_client.put_nowait(json.loads(text))

    async def receive(self) -> str:
        item = await self._to_client.get()
        if isinstance(item, SocketClosed):
            self._to_client.put_nowait(item)
            raise item
        return item

    async def close(self) -> None:
        self.closed_by_client = self._ended is None
        self._ended = self._ended or SocketClosed(1000, "")

    def abort(self) -> None:
        self.aborted = True
        self.end(1006)

    async def next(self, kind: str) -> dict[str, Any]:
        """The payload of the next frame of the client, which must be of this type."""
        frame = await self._from_client.get()
        assert frame["type"] == kind, f"{kind} was to come, not {frame}"
        payload: dict[str, Any] = frame.get("payload") or {}
        return payload

    async def silence(self, seconds: float = 0.5) -> None:
        """Nothing comes from the client for so long."""
        await asyncio.sleep(seconds)
        assert self._from_client.empty(), f"nothing was to come, but {self._from_client.get_nowait()}"

    def say(self, kind: str, **payload: Any) -> None:
        """Send a frame to the client."""
        self.say_text(json.dumps({"type": kind, "payload": payload}))

    def say_text(self, text: str) -> None:
        """Send a text to the client."""
        self._to_client.put_nowait(text)

    def end(self, code: int = 1006, reason: str = "") -> None:
        """End the connection."""
        self._ended = SocketClosed(code, reason)
        self._to_client.put_nowait(self._ended)

    def ack(self, message: dict[str, Any], status: str = "queued") -> None:
        """Ack a message."""
        self.say("Ack", message_id=message["message_id"], status=status)

    def refuse(self, message: dict[str, Any], code: int, **more: Any) -> None:
        """Refuse a message."""
        ids = {"message_id": message["message_id"], "recipient_id": message["recipient_id"]}
        self.say("Error", code=code, message=f"refused with {code}", **ids, **more)

    def deliver(self, message_id: str, data: str = "hello", sender: str = BOB, **more: Any) -> None:
        """Deliver a message of another device."""
        self.say("Receive", message_id=message_id, sender_id=sender, recipient_id=ALICE, encrypted_data=data, **more)


class FakeRelay:
    """Takes connections, and gives them to the test."""

    def __init__(self) -> None:
        self._sockets: asyncio.Queue[FakeSocket] = asyncio.Queue()
        self._failures: deque[DialFailed] = deque()
        self.unreachable: DialFailed | None = None
        #: The times of all attempts.
        self.attempts: list[float] = []
        #: What chance gives: 1 makes each random wait its longest.
        self.chance = 1.0
        #: How far the wall clock differs from the one that nobody sets.
        self.wall_offset = EPOCH

    async def dial(self, _url: str, _timeout: float) -> Socket:
        self.attempts.append(now())
        if self._failures:
            raise self._failures.popleft()
        if self.unreachable is not None:
            raise self.unreachable
        socket = FakeSocket()
        self._sockets.put_nowait(socket)
        return socket

    def fail_next(self, *failures: DialFailed) -> None:
        """Let the next attempts fail."""
        self._failures.extend(failures)

    async def connection(self) -> FakeSocket:
        """The next connection."""
        return await self._sockets.get()

    async def registered(
        self, device_id: str = ALICE, token: str = TOKEN, resumed: bool = False, **limits: float
    ) -> FakeSocket:
        """The next connection, registered."""
        socket = await self.connection()
        await socket.next("Register")
        answer_register(socket, device_id, token, resumed, **limits)
        return socket

    async def client(self, storage: Storage | None = None, **options: Any) -> Client:
        """A client of this relay."""
        environment = Environment(
            dial=self.dial, random=lambda: self.chance, wall=lambda: self.wall_offset + now(), uptime=now
        )
        storage = MemoryStorage() if storage is None else storage
        chosen = Options("ws://relay.test/ws", storage, environment=environment, **options)
        return Client(chosen, await storage.open())


def answer_register(
    socket: FakeSocket, device_id: str = ALICE, token: str = TOKEN, resumed: bool = False, **limits: float
) -> None:
    """Say that the device is registered."""
    told = {"messages_per_minute": 6000, "burst": 1000, "message_bytes": 65536, **limits}
    socket.say("RegisterResponse", device_id=device_id, resume_token=token, resumed=resumed, limits=told)
