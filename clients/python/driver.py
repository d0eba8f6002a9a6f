"""The driver of the conformance kit: commands as JSON lines on stdin, events as JSON lines on stdout.

clients/DESIGN.md says which. To be started with a Python that has the library websockets.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).parent / "src"))

from sealpost import (
    Answer,
    AuthenticationRequest,
    Backoff,
    Client,
    Closed,
    Expired,
    Failed,
    Handle,
    HandlerError,
    IdentityLost,
    KeyRotation,
    Message,
    Receipt,
    Refused,
    Registered,
    SealpostError,
    SqliteStorage,
    State,
    Watchdog,
    connect,
)

#: More than the longest command.
LINE_LIMIT = 2**26

Command = dict[str, Any]


def public_key(device_id: str) -> str:
    """The key of a device in the fixed test scheme."""
    return f"key-{device_id}"


def respond(challenge: str, signer: str) -> str:
    """The response of the device ``signer`` to a challenge."""
    digest = hashlib.sha256(f"{challenge}:{public_key(signer)}".encode()).digest()
    return base64.b64encode(digest).decode("ascii")


def emit(event: str, **fields: Any) -> None:
    """Write one event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def describe(error: SealpostError) -> dict[str, Any]:
    """How an error is told to the kit."""
    if isinstance(error, (Expired, Refused)):
        name = "expired" if isinstance(error, Expired) else "refused"
        return {"error": name, "reason": str(error), **({} if error.code is None else {"code": error.code})}
    return {"error": "gave_up", "reason": str(error)}


class Driver:
    """Carries out commands on one client."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._fail_next = False
        self._released = asyncio.Event()
        self._released.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until stdin ends."""
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            await getattr(self, f"do_{command['command']}")(command)
        await self.do_close({})

    @property
    def client(self) -> Client:
        """The client, after the command connect."""
        assert self._client is not None, "connect comes first"
        return self._client

    async def do_connect(self, command: Command) -> None:
        """Open the storage and begin to connect."""
        directory = Path(command["storage"])
        directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
        backoff, watchdog = command.get("backoff"), command.get("watchdog")
        self._client = client = await connect(
            command["url"],
            storage=SqliteStorage(directory / "device.sqlite3"),
            access_token=command.get("access_token"),
            backoff=Backoff(backoff["base"] / 1000, backoff["max"] / 1000) if backoff else None,
            watchdog=Watchdog(watchdog["ping"] / 1000, watchdog["timeout"] / 1000) if watchdog else None,
        )
        self._listen(client)
        client.on_message(self._on_message)
        client.on_key_rotation(self._on_key_rotation)
        client.on_authenticate(self._on_authenticate)

    async def do_send(self, command: Command) -> None:
        """Send, and report each outcome."""
        # Called before the next command is read, so the calls have the order of the commands.
        sending = self.client.send(command["to"], command["data"], ttl=command.get("ttl"))
        self._spawn(self._follow(command["ref"], sending))
        await asyncio.sleep(0)

    async def do_handler(self, command: Command) -> None:
        """Change how handlers behave."""
        mode = command["mode"]
        self._fail_next = mode == "fail_once"
        if mode == "hold":
            self._released.clear()
        else:
            self._released.set()

    async def do_authenticate(self, command: Command) -> None:
        """Begin an authentication."""
        work = self._authenticate(command["to"])
        self._spawn(self._report(command["ref"], "authenticate", "authenticated", work))

    async def do_rotate_key(self, command: Command) -> None:
        """Send a new key."""
        work = self.client.peer(command["to"]).rotate_key(command["package"], command.get("key_id"))
        self._spawn(self._report(command["ref"], "rotate_key", "rotated", work))

    async def do_status(self, command: Command) -> None:
        """Change the status."""
        self.client.set_status(command["status"])

    async def do_reconnect(self, _: Command) -> None:
        """Try at once."""
        self.client.reconnect()

    async def do_unregister(self, _: Command) -> None:
        """End the device."""
        self._spawn(self._unregister())

    async def do_close(self, _: Command) -> None:
        """Close the client; what it sent and has no outcome yet is not over."""
        if self._client is not None:
            await self._client.close()

    async def _authenticate(self, peer: str) -> None:
        own = self.client.device_id or await self.client.registered()
        answer = self._answer(own, peer)
        await self.client.peer(peer).authenticate(public_key=public_key(own), sign=answer.sign, verify=answer.verify)

    async def _unregister(self) -> None:
        try:
            await self.client.unregister()
        except SealpostError as error:
            print(f"unregister: {error}", file=sys.stderr)

    def _listen(self, client: Client) -> None:
        def on_state(state: State) -> None:
            emit("state", state=state.name, **({"reason": state.reason} if state.reason else {}))

        def on_registered(registered: Registered) -> None:
            emit("registered", device_id=registered.device_id, resumed=registered.resumed)

        def on_identity_lost(lost: IdentityLost) -> None:
            emit("identity_lost", device_id=lost.device_id)

        def on_handler_error(failed: HandlerError) -> None:
            emit("handler_error", **{"from": failed.sender, "id": failed.message_id, "reason": str(failed.error)})

        def on_receipt(receipt: Receipt) -> None:
            emit("receipt", id=receipt.message_id, status=receipt.status)

        def on_expired(failed: Failed) -> None:
            emit("expired", id=failed.message_id, **describe(failed.error))

        client.on("state", on_state)
        client.on("registered", on_registered)
        client.on("unsent", lambda count: emit("unsent", count=count))
        client.on("identity_lost", on_identity_lost)
        client.on("handler_error", on_handler_error)
        client.on("receipt", on_receipt)
        client.on("expired", on_expired)
        client.on("authenticated", lambda done: emit("authenticated", **{"from": done.peer}))
        client.on("error", lambda error: print(f"error: {error}", file=sys.stderr))
        emit("unsent", count=client.unsent)

    async def _on_message(self, message: Message) -> None:
        fields = {"from": message.sender, "id": message.id}
        emit("message", **fields, data=message.data)
        if self._fail_next:
            self._fail_next = False
            raise RuntimeError("told to fail once")
        await self._released.wait()
        emit("handled", **fields)

    async def _on_key_rotation(self, rotation: KeyRotation) -> bool:
        emit("key_rotation", **{"from": rotation.sender}, key_id=rotation.key_id, package=rotation.package)
        return True

    async def _on_authenticate(self, request: AuthenticationRequest) -> Answer:
        return self._answer(await self.client.registered(), request.sender)

    def _answer(self, own: str, peer: str) -> Answer:
        return Answer(
            sign=lambda challenge: respond(challenge, own),
            verify=lambda challenge, response: response == respond(challenge, peer),
        )

    async def _follow(self, ref: Any, sending: Awaitable[Handle]) -> None:
        try:
            handle = await sending
        except SealpostError as error:
            emit("failed", ref=ref, stage="accepted", **describe(error))
            return
        self._spawn(self._report(ref, "accepted", "accepted", handle.accepted))
        self._spawn(self._report(ref, "delivered", "delivered", handle.delivered))
        self._spawn(self._report(ref, "processed", "processed", handle.processed, lambda status: {"status": status}))

    async def _report(
        self,
        ref: Any,
        stage: str,
        event: str,
        work: Awaitable[Any],
        fields: Callable[[Any], dict[str, Any]] = lambda _: {},
    ) -> None:
        try:
            result = await work
        except Closed:
            pass  # A message outlives its client: it goes out next time.
        except SealpostError as error:
            emit("failed", ref=ref, stage=stage, **describe(error))
        else:
            emit(event, ref=ref, **fields(result))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


if __name__ == "__main__":
    asyncio.run(Driver().run())
