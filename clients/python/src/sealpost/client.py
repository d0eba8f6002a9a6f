"""The client: what an application calls, and how the parts work together."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from .authentication import AuthenticateHandler, Authentications
from .backoff import TOO_LARGE, Ending
from .connection import Connection
from .content import message_content
from .errors import Closed, Expired, GaveUp, StorageError
from .events import Emitter, IdentityLost, Registered, State, logger
from .frames import Frame, RelayError, device_id, encode
from .handle import Handle, Outcome
from .inbox import Inbox, KeyRotationHandler, MessageHandler
from .link import Link
from .options import Options
from .outbox import IDENTITY_LOST, Outbox
from .pacing import Pacing
from .peer import Peer
from .presence import Presence, StatusName
from .pump import Pump
from .receipts import Receipts
from .refusals import EXPIRED, RATE_LIMITED
from .registration import Registration, register
from .rotation import KeyRotations
from .storage import Contents, Identity
from .tasks import Tasks
from .transport import SocketClosed
from .wake import watch_for_wake

NORMAL_CLOSE = 1000
REPLACED = 409

M = TypeVar("M", bound=MessageHandler)
K = TypeVar("K", bound=KeyRotationHandler)
A = TypeVar("A", bound=AuthenticateHandler)


class Client(Emitter):
    """One device at a relay. Made by :func:`connect`."""

    def __init__(self, options: Options, contents: Contents) -> None:
        super().__init__()
        self._options = options
        self._storage = options.storage
        self._identity = contents.identity
        self._identity_stored = True
        self._loop = asyncio.get_running_loop()
        #: The registered connection, if there is one.
        self._link: Link | None = None
        self._registered_before = False
        self._unregistering: Outcome[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed: Outcome[None] = Outcome()
        self._state_changed = asyncio.Event()
        self._background = Tasks()
        self._writes = Tasks()
        environment, scale = options.environment, options.backoff.scale
        self._pacing = Pacing(self._loop.time())
        self._receipts = Receipts(self)
        self._outbox = Outbox(options.storage, environment, self, self._receipts, self._writes)
        self._pump = Pump(self._pacing, scale, self._outbox.before_write)
        self._outbox.attach(self._pump)
        self._inbox = Inbox(options.storage, self, options.concurrency, self._send_if_online, self._own_id)
        self._authentications = Authentications(self._pump, self)
        self._rotations = KeyRotations(self._pump)
        self._presence = Presence(self._pump)
        self._connection = Connection(
            options.url, environment, options.backoff, options.watchdog, self._serve, self._on_state
        )
        self._outbox.load(contents.outbox)
        self._inbox.load(contents.handed_over)
        self._background.spawn(self._connection.run())
        self._background.spawn(watch_for_wake(environment.wall, self._connection.system_woke))

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._connection.state

    @property
    def device_id(self) -> str | None:
        """The id of this device; None before the first registration."""
        return self._identity.device_id if self._identity else None

    @property
    def unsent(self) -> int:
        """The number of messages that the relay has not acked."""
        return len(self._outbox)

    async def registered(self) -> str:
        """Wait until the client is online, and return its device id; GaveUp where nothing more is tried."""
        while self._link is None:
            state = self.state
            if state.name not in ("connecting", "online") and state.next_attempt is None:
                raise GaveUp(state.reason)
            await self._state_changed.wait()
        return self._own_id()

    async def send(
        self,
        to: str,
        data: str,
        *,
        ttl: int | None = None,
        content_type: str | None = None,
        signature: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> Handle:
        """Send ``data`` to the device ``to``; returns when the message is stored.

        ``ttl`` is in seconds; with 0 the message is for now only. ``fields`` are added to the payload as they are.
        Raises StorageError where the message could not be stored, and is not sent then.
        """
        self._check_open()
        recipient = device_id(to)
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int) or ttl < 0):
            raise ValueError("ttl is a whole number of seconds, 0 or more")
        content = message_content(data, content_type, signature, fields)
        if ttl == 0 and self._link is None:
            return _expired_at_once(recipient)
        return await self._outbox.send(recipient, content, ttl)

    def on_message(self, handler: M) -> M:
        """Hand messages to ``handler``, an async function; usable as a decorator.

        A message is confirmed when the handler has ended; when it raises, the same message comes again later.
        """
        self._inbox.set_message_handler(handler)
        return handler

    def on_key_rotation(self, handler: K) -> K:
        """Hand new keys of other devices to ``handler``, which says whether it took them; usable as a decorator.

        Without one, keys are answered with no as soon as there is a handler for messages.
        """
        self._inbox.set_key_handler(handler)
        return handler

    def on_authenticate(self, handler: A) -> A:
        """Ask ``handler`` how to answer a device that begins an authentication; usable as a decorator."""
        self._authentications.set_handler(handler)
        return handler

    def peer(self, id: str) -> Peer:
        """Another device."""
        return Peer(device_id(id), self._authentications, self._rotations, self._check_open)

    def set_status(self, status: StatusName) -> None:
        """Say Online, Away or Offline: whether messages are to come, or to wait at the relay."""
        self._check_open()
        self._presence.set(status, connected=self._link is not None)

    def reconnect(self) -> None:
        """Try to connect at once."""
        self._check_open()
        self._connection.reconnect()

    async def unregister(self) -> None:
        """End this device at the relay, clear the identity, and close; GaveUp where it is not known to be done."""
        self._check_open()
        if self._link is None:
            raise GaveUp("there is no connection")
        if self._unregistering is None:
            self._unregistering = Outcome()
            await self._send_if_online(encode("Unregister"))
        await self._unregistering
        await self._close("the device was ended")

    async def close(self) -> None:
        """Close the connection, end all tasks, and release the storage. The outbox stays for next time.

        A handler that runs is cancelled, and its message comes again next time.
        """
        await self._close("the application closed the client")

    async def _close(self, reason: str) -> None:
        # A task of its own, so that a caller that is cancelled leaves nothing half closed.
        if self._closing is None:
            self._closing = self._loop.create_task(self._shut_down(reason))
        await self._closed

    async def _shut_down(self, reason: str) -> None:
        await self._inbox.close()
        await self._background.cancel()
        if self._unregistering is not None:
            self._unregistering.reject(Closed())
        await self._authentications.close(Closed())
        self._rotations.close(Closed())
        await self._writes.join()
        self._outbox.close(Closed())
        self._receipts.reject_all(Closed())
        await self._storage.close()
        self._connection.closed(reason)
        self._closed.resolve(None)

    async def _serve(self, link: Link) -> Ending:
        """Use a connection until it ends; raises what ended it."""
        registration = await register(
            link, self._identity, self._options.access_token, self._options.accept, self._lose_identity
        )
        await self._take_identity(registration.identity)
        self._take_limits(registration)
        self._link = link
        too_large = False
        try:
            self.emit("registered", Registered(registration.identity.device_id, registration.resumed))
            self._connection.online()
            self._presence.connected()
            self._rotations.connected()
            await _until_first_failure(self._read(link), self._pump.run(link, registration.identity.device_id))
            raise AssertionError("reading ends by an exception")
        except SocketClosed as closed:
            too_large = closed.code == TOO_LARGE
            if self._unregistering is not None and await self._note_unregistered(closed, self._unregistering):
                return Ending("the device was ended", state="closed", retry=False)
            raise
        finally:
            self._link = None
            self._outbox.disconnected(too_large)
            self._pump.disconnected()

    async def _take_identity(self, identity: Identity) -> None:
        """Store the identity before anything else leaves."""
        if identity == self._identity and self._identity_stored:
            return
        # Kept also where the storage fails: the next attempt resumes it, rather than leave a device behind.
        self._identity, self._identity_stored = identity, False
        await self._store(self._storage.save_identity(identity))
        self._identity_stored = True

    def _take_limits(self, registration: Registration) -> None:
        now = self._loop.time()
        self._pacing.set_limits(registration.limit("messages_per_minute", 60), registration.limit("burst", 60), now)
        self._outbox.set_message_bytes(registration.limit("message_bytes", float("inf")))
        if not registration.resumed:
            self._pump.forget_promises()
            self._pacing.fill(now)
        elif not self._registered_before:
            # What an earlier process has used is not known.
            self._pacing.set_tokens(1, now)
        self._registered_before = True

    async def _lose_identity(self) -> None:
        lost = self._own_id()
        await self._forget_identity(IDENTITY_LOST)
        self.emit("identity_lost", IdentityLost(lost))

    async def _forget_identity(self, reason: str) -> None:
        """Clear the identity, and give up what other devices may have got under it."""
        await self._store(self._storage.clear_identity(self._outbox.written_ids()))
        self._identity = None
        error = GaveUp(reason)
        self._outbox.identity_lost(error)
        self._receipts.reject_all(error)
        self._rotations.identity_lost(error)
        self._authentications.reject_all(error)

    async def _note_unregistered(self, closed: SocketClosed, outcome: Outcome[None]) -> bool:
        self._unregistering = None
        if closed.code != NORMAL_CLOSE:
            outcome.reject(GaveUp("the connection ended before the relay confirmed"))
            return False
        try:
            await self._forget_identity("the device was ended")
        except StorageError as error:
            outcome.reject(error)
        outcome.resolve(None)
        return True

    async def _store(self, write: Coroutine[Any, Any, None]) -> None:
        try:
            await write
        except StorageError as error:
            self.emit("error", error)
            raise

    async def _read(self, link: Link) -> None:
        while True:
            frame = await link.receive()
            if frame.type == "Ack":
                self._on_ack(frame)
            elif frame.type == "Error":
                self._on_error(RelayError.of(frame))
            elif frame.type == "Receive":
                await self._inbox.on_receive(frame)
            elif frame.type == "KeyRotationUpdate":
                await self._inbox.on_key_rotation(frame)
            elif frame.type == "KeyRotationAck":
                self._rotations.on_ack(frame)
            elif frame.type in ("AuthRequest", "AuthResponse", "AuthVerify", "AuthSuccess"):
                self._authentications.on_frame(frame)

    def _on_ack(self, frame: Frame) -> None:
        message_id = frame.id("message_id")
        if message_id is not None:
            self._outbox.on_ack(message_id)
            self._receipts.on_status(message_id, frame.text("status"))

    def _on_error(self, error: RelayError) -> None:
        if error.message_id is not None:
            if not self._outbox.on_error(error) and error.code == EXPIRED:
                self._receipts.on_expired(error.message_id, error.message)
        elif error.key_id is not None:
            self._rotations.on_error(error)
        elif error.recipient_id is not None:
            self._authentications.on_error(error)
        elif error.code == REPLACED:
            self._connection.replaced = True
        elif error.code == RATE_LIMITED:
            self._presence.on_rate_limited(error)
        else:
            logger.info("the relay says: %s (%s)", error.message, error.code)

    def _on_state(self, state: State) -> None:
        self._state_changed.set()
        self._state_changed = asyncio.Event()
        self.emit("state", state)

    async def _send_if_online(self, text: str) -> None:
        """Write a frame that costs no allowance; without a connection it is not needed."""
        if self._link is None:
            return
        # Where the connection has ended, the reader sees why.
        with contextlib.suppress(SocketClosed):
            await self._link.send(text)

    def _own_id(self) -> str:
        assert self._identity is not None, "there was a connection"
        return self._identity.device_id

    def _check_open(self) -> None:
        if self._closing is not None:
            raise Closed()


def _expired_at_once(recipient: str) -> Handle:
    handle = Handle(str(uuid.uuid4()), recipient)
    handle.reject(Expired("there is no connection, and the message is for now only"))
    return handle


async def _until_first_failure(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one raises, and raise it."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
