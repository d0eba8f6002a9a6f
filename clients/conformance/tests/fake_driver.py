"""A small driver that does right by messages and key rotations, or wrong on purpose, so that the kit is proven to find it.

    python3 -m conformance.tests.fake_driver [FAULT]

It is no client to use: it keeps everything in one JSON file and does not pace itself, authenticate, or watch its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from .mini_websocket import Closed, MiniWebSocket

FAULTS = {
    "lose": "acks every fifth message without handing it over",
    "ack-early": "acks before the handler has ended",
    "forget-outbox": "does not store the outbox",
    "forget-ids": "does not remember what was handed over",
    "new-ids": "repeats what was not acked under a new id",
    "reorder": "writes all that waits at once, the newest first",
    "alter": "changes the data of every fifth message",
    "untold": "does not tell every fifth processed",
    "tell-twice": "tells every fifth accepted twice",
    "come-back": "connects again by itself after it was replaced",
}
Frame = dict[str, Any]


class FakeDriver:
    """One device."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.counts: dict[str, int] = {}
        self.url = ""
        self.file = Path()
        self.backoff = {"base": 1000, "max": 60_000}
        self.identity: Frame = {}
        self.outbox: list[Frame] = []
        self.seen: list[list[str]] = []
        self.refs: dict[str, int] = {}
        self.told: dict[str, set[str]] = {}
        self.under_way: dict[str, str] = {}
        self.rotations: dict[str, Frame] = {}
        self.begun: set[tuple[str, str]] = set()
        self.chains: dict[str, asyncio.Queue[Frame]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.socket: MiniWebSocket | None = None
        self.registered = False
        self.fail_next = False
        self.free = asyncio.Event()
        self.free.set()
        self.status = "Online"
        self.running: asyncio.Task[None] | None = None

    # Commands.

    async def obey(self) -> None:
        """Reads commands until the input ends."""
        reader = asyncio.StreamReader(limit=4 * 1024 * 1024)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async for line in reader:
            command = json.loads(line)
            getattr(self, f"on_{command['command']}")(command)

    def on_connect(self, command: Frame) -> None:
        """Takes up what is stored, and connects."""
        self.url, self.backoff = command["url"], command["backoff"]
        self.file = Path(command["storage"]) / "device.json"
        if self.file.exists():
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            self.identity, self.outbox, self.seen = stored["identity"], stored["outbox"], stored["seen"]
        self.running = asyncio.create_task(self.stay_connected())

    def on_reconnect(self, _command: Frame) -> None:
        """Connects at once."""
        if self.running is not None:
            self.running.cancel()
        self.running = asyncio.create_task(self.stay_connected())

    def on_close(self, _command: Frame) -> None:
        """Ends the connection for good."""
        if self.running is not None:
            self.running.cancel()
        if self.socket is not None:
            self.socket.close(1000)
        tell("state", state="closed")

    def on_send(self, command: Frame) -> None:
        """Stores a message, and sends it if its turn has come."""
        entry = {"id": str(uuid.uuid4()), "to": command["to"], "data": command["data"], "ttl": command.get("ttl")}
        entry["expires"] = None if entry["ttl"] is None else time.time() + entry["ttl"]
        self.refs[entry["id"]] = command["ref"]
        self.told[entry["id"]] = set()
        self.outbox.append(entry)
        if entry["ttl"] is not None:
            self.start(self.expire(entry))
        self.save()
        tell("unsent", count=len(self.outbox))
        self.pump()

    def on_rotate_key(self, command: Frame) -> None:
        """Sends a key, and repeats it on each connection until it is acked."""
        key_id = command.get("key_id") or str(uuid.uuid4())
        self.rotations[key_id] = command
        self.write_rotation(key_id)

    def on_handler(self, command: Frame) -> None:
        """Changes what handlers do."""
        mode = command["mode"]
        self.fail_next = mode == "fail_once"
        if mode == "hold":
            self.free.clear()
        else:
            self.free.set()

    def on_status(self, command: Frame) -> None:
        """Says a status, now and on each new connection."""
        self.status = command["status"]
        self.write_status()

    # The connection.

    async def stay_connected(self) -> None:
        """Connects again and again."""
        attempt = 0
        while True:
            tell("state", state="connecting")
            code = 1006
            try:
                self.socket = await MiniWebSocket.connect(self.url)
                await self.talk(self.socket)
            except Closed as closed:
                code = closed.code
            except OSError:
                pass
            finally:
                self.registered = False
                if self.socket is not None:
                    self.socket.close()
                    self.socket = None
            if code == 4409 and self.fault != "come-back":
                tell("state", state="replaced")
                return
            tell("state", state="offline", reason=f"the connection ended ({code})")
            await asyncio.sleep(random.uniform(0, min(self.backoff["max"], self.backoff["base"] * 2**attempt)) / 1000)
            attempt = min(attempt + 1, 10)

    async def talk(self, socket: MiniWebSocket) -> None:
        """Registers, and handles what comes."""
        token = {"resume_token": self.identity["token"]} if self.identity else {}
        self.write("Register", {"resumable": True, "receipts": True, **token})
        while True:
            frame = json.loads(await socket.receive())
            getattr(self, f"got_{frame['type']}", lambda _: None)(frame.get("payload") or {})

    def got_RegisterResponse(self, payload: Frame) -> None:
        """The device is registered: what is not acked goes out again."""
        self.identity = {"id": payload["device_id"], "token": payload["resume_token"]}
        self.save()
        self.registered = True
        if self.fault == "new-ids":
            self.change_ids()
        self.under_way.clear()
        tell("registered", device_id=payload["device_id"], resumed=payload["resumed"])
        tell("state", state="online")
        self.write_status()
        for key_id in self.rotations:
            self.write_rotation(key_id)
        self.pump()

    def got_Ping(self, _payload: Frame) -> None:
        """Somebody asks whether anybody is there."""
        self.write("Pong", {})

    def got_Ack(self, payload: Frame) -> None:
        """The relay has a message, or says more of it."""
        message_id, status = payload["message_id"], payload["status"]
        self.done_with(message_id)
        stages = {"queued": ["accepted"], "delivered": ["accepted", "delivered", "processed"]}
        for stage in stages.get(status, ["accepted", "delivered", "processed"]):
            self.tell_stage(message_id, stage)
        if status == "delivered":
            self.told.pop(message_id, None)

    def got_Error(self, payload: Frame) -> None:
        """Something was refused or has expired."""
        message_id, code = payload.get("message_id"), payload["code"]
        if code == 401:
            self.identity = {}
            tell("identity_lost")
            self.write("Register", {"resumable": True, "receipts": True})
        elif message_id is not None and code in (429, 503, 507):
            self.start(self.repeat_later(message_id, payload.get("retry_after_ms", self.backoff["base"])))
        elif message_id is not None:
            self.done_with(message_id)
            self.fail(message_id, "expired" if code == 410 else "refused", code, payload["message"])

    def got_Receive(self, payload: Frame) -> None:
        """A message of another device."""
        self.take(payload["sender_id"], payload["message_id"], payload)

    def got_KeyRotationUpdate(self, payload: Frame) -> None:
        """A new key of another device."""
        self.take(payload["sender_id"], f"key:{payload['key_id']}", payload)

    def got_KeyRotationAck(self, payload: Frame) -> None:
        """The other device has the key."""
        command = self.rotations.pop(payload["key_id"], None)
        if command is not None:
            tell("rotated", ref=command["ref"])

    # Sending.

    def pump(self) -> None:
        """Writes what may be written: one message for each recipient."""
        if not self.registered:
            return
        entries = list(reversed(self.outbox)) if self.fault == "reorder" else list(self.outbox)
        for entry in entries:
            if self.under_way.get(entry["to"]) in (None, entry["id"]) or self.fault == "reorder":
                if self.under_way.get(entry["to"]) == entry["id"]:
                    continue
                self.under_way[entry["to"]] = entry["id"]
                self.write_send(entry)

    def write_send(self, entry: Frame) -> None:
        """Writes one message."""
        data = entry["data"] + "?" if self.fault == "alter" and self.every_fifth("alter") else entry["data"]
        ttl = {} if entry["ttl"] is None else {"ttl": entry["ttl"]}
        self.write(
            "Send",
            {
                "sender_id": self.identity["id"],
                "recipient_id": entry["to"],
                "message_id": entry["id"],
                "encrypted_data": data,
                **ttl,
            },
        )

    async def repeat_later(self, message_id: str, milliseconds: int) -> None:
        """Writes a refused message again."""
        await asyncio.sleep(milliseconds / 1000)
        for entry in self.outbox:
            if entry["id"] == message_id and self.registered:
                self.write_send(entry)

    async def expire(self, entry: Frame) -> None:
        """Gives up a message whose ttl is over before it was acked."""
        await asyncio.sleep(max(0.0, entry["expires"] - time.time()))
        if entry in self.outbox:
            self.done_with(entry["id"])
            self.fail(entry["id"], "expired", None, "it waited too long")

    def change_ids(self) -> None:
        """The fault of a client that makes a new message of each repeat."""
        for entry in self.outbox:
            old, entry["id"] = entry["id"], str(uuid.uuid4())
            if old in self.refs:
                self.refs[entry["id"]] = self.refs.pop(old)
                self.told[entry["id"]] = self.told.pop(old)

    def done_with(self, message_id: str) -> None:
        """Takes a message from the outbox; the next one for its recipient may leave."""
        before = len(self.outbox)
        self.outbox = [entry for entry in self.outbox if entry["id"] != message_id]
        if len(self.outbox) != before:
            self.save()
            tell("unsent", count=len(self.outbox))
            self.under_way = {to: other for to, other in self.under_way.items() if other != message_id}
            self.pump()

    def tell_stage(self, message_id: str, stage: str) -> None:
        """Tells a stage once."""
        told = self.told.get(message_id)
        if told is None or stage in told:
            return
        told.add(stage)
        if stage == "processed" and self.fault == "untold" and self.every_fifth("untold"):
            return
        twice = stage == "accepted" and self.fault == "tell-twice" and self.every_fifth("tell-twice")
        for _ in range(2 if twice else 1):
            tell(stage, ref=self.refs[message_id], status="processed")

    def fail(self, message_id: str, error: str, code: int | None, reason: str) -> None:
        """Tells that all open stages have failed."""
        for stage in ("accepted", "delivered", "processed"):
            if message_id in self.told and stage not in self.told[message_id]:
                tell("failed", ref=self.refs[message_id], stage=stage, error=error, code=code, reason=reason)
        self.told.pop(message_id, None)

    # Receiving.

    def take(self, sender: str, message_id: str, payload: Frame) -> None:
        """Puts a message into the chain of its sender, unless it is known."""
        if [sender, message_id] in self.seen and self.fault != "forget-ids":
            self.confirm(sender, message_id, payload)
        elif (sender, message_id) not in self.begun:
            if self.fault == "lose" and self.every_fifth("lose"):
                self.confirm(sender, message_id, payload)
                return
            self.begun.add((sender, message_id))
            if sender not in self.chains:
                self.chains[sender] = asyncio.Queue()
                self.start(self.handle_all(self.chains[sender]))
            self.chains[sender].put_nowait({"sender": sender, "id": message_id, "payload": payload})

    async def handle_all(self, chain: asyncio.Queue[Frame]) -> None:
        """Handles the messages of one sender, one after the other."""
        while True:
            item = await chain.get()
            sender, message_id, payload = item["sender"], item["id"], item["payload"]
            if self.fault == "ack-early":
                self.confirm(sender, message_id, payload)
            if message_id.startswith("key:"):
                tell("key_rotation", **{"from": sender}, key_id=payload["key_id"], package=payload["encrypted_key_package"])
            else:
                await self.handle(sender, message_id, payload)
            self.seen.append([sender, message_id])
            self.save()
            self.begun.discard((sender, message_id))
            self.confirm(sender, message_id, payload)

    async def handle(self, sender: str, message_id: str, payload: Frame) -> None:
        """Runs the handler until it ends well."""
        while True:
            tell("message", **{"from": sender}, id=message_id, data=payload["encrypted_data"])
            if not self.fail_next:
                break
            self.fail_next = False
            tell("handler_error")
            await asyncio.sleep(self.backoff["base"] / 1000)
        await self.free.wait()
        tell("handled", **{"from": sender}, id=message_id)

    def confirm(self, sender: str, message_id: str, payload: Frame) -> None:
        """Acks a message or a key on the connection there is."""
        if message_id.startswith("key:"):
            ack = {"sender_id": self.identity["id"], "recipient_id": sender, "key_id": payload["key_id"], "success": True}
            self.write("KeyRotationAck", ack)
        else:
            self.write("Ack", {"message_id": message_id, "sender_id": sender})

    # The rest.

    def write_rotation(self, key_id: str) -> None:
        """Writes a key."""
        command = self.rotations[key_id]
        payload = {"recipient_id": command["to"], "encrypted_key_package": command["package"], "key_id": key_id}
        if self.registered:
            self.write("KeyRotationUpdate", {"sender_id": self.identity["id"], **payload})

    def write_status(self) -> None:
        """Writes the status, if there is a connection."""
        if self.registered:
            self.write("Status", {"device_id": self.identity["id"], "status": self.status})

    def write(self, kind: str, payload: Frame) -> None:
        """Writes a frame, if there is a connection."""
        if self.socket is not None:
            self.socket.send(json.dumps({"type": kind, "payload": payload}))

    def save(self) -> None:
        """Writes everything to the file, as a whole."""
        outbox = [] if self.fault == "forget-outbox" else self.outbox
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"identity": self.identity, "outbox": outbox, "seen": self.seen}), encoding="utf-8")
        fresh.replace(self.file)

    def every_fifth(self, name: str) -> bool:
        """True each fifth time."""
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name] % 5 == 0

    def start(self, work: Any) -> None:
        """Runs a task that lives as long as the driver or the work."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def tell(event: str, **fields: object) -> None:
    """Writes one event."""
    given = {key: value for key, value in fields.items() if value is not None}
    sys.stdout.write(json.dumps({"event": event, **given}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs the driver until its input ends."""
    fault = sys.argv[1] if len(sys.argv) > 1 else "none"
    if fault != "none" and fault not in FAULTS:
        sys.exit(f"no fault {fault}: there are {', '.join(FAULTS)}")

    async def run() -> None:
        await FakeDriver(fault).obey()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
