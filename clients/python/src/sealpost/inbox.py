"""Messages that arrive: one chain per sender, handed over once, confirmed when their handler has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from .errors import StorageError
from .events import Emitter, HandlerError
from .frames import Frame, encode, key_id_text, key_rotation_ack
from .storage import HandedOver, Storage
from .storage.base import REMEMBERED_IDS
from .tasks import Tasks

#: Seconds before a message whose handler failed is handed over again, at first and at most.
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
#: How long the end of the client waits for confirmations that do not leave.
FINISH_TIMEOUT = 2.0


@dataclass(frozen=True)
class Message:
    """A message of another device. The relay vouches for ``sender``; all else is the sender's word."""

    sender: str
    id: str
    #: What the sender passed to send(), encrypted by the application or not.
    data: str
    content_type: Any = None
    signature: str | None = None
    ttl: Any = None
    #: The whole payload, with the fields that this client does not know.
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class KeyRotation:
    """A new key of another device."""

    sender: str
    key_id: Any
    package: str


MessageHandler = Callable[[Message], Awaitable[None]]
KeyRotationHandler = Callable[[KeyRotation], Awaitable[bool]]


@dataclass(frozen=True)
class _Delivery:
    sender: str
    id: str
    #: Set when the application is ready to be handed this.
    ready: asyncio.Event
    #: Calls the handler; what it returns is the answer to a key rotation.
    hand_over: Callable[[], Awaitable[str | None]]
    confirm: Callable[[str | None], Awaitable[None]]

    @property
    def key(self) -> tuple[str, str]:
        return (self.sender, self.id)


class Inbox:
    """Hands messages to the application.

    ``send`` writes a frame if there is a connection, and ``own_id`` is the id of this device.
    """

    def __init__(
        self,
        storage: Storage,
        events: Emitter,
        concurrency: int,
        send: Callable[[str], Awaitable[None]],
        own_id: Callable[[], str],
    ) -> None:
        self._storage = storage
        self._events = events
        self._send = send
        self._own_id = own_id
        self._tasks = Tasks()
        self._slots = asyncio.Semaphore(concurrency)
        self._ready_for_messages = asyncio.Event()
        #: An application that has set one handler has had its chance to set the one for keys.
        self._ready_for_keys = asyncio.Event()
        self._message_handler: MessageHandler | None = None
        self._key_handler: KeyRotationHandler | None = None
        self._chains: dict[str, deque[_Delivery]] = {}
        self._pending: set[tuple[str, str]] = set()
        #: The answers by sender and id, the oldest first.
        self._handed_over: dict[tuple[str, str], str | None] = {}
        #: Tasks whose handler has ended, and that store the id and confirm.
        self._finishing_tasks: set[asyncio.Task[Any] | None] = set()
        self._closing = False

    def load(self, handed_over: Iterable[HandedOver]) -> None:
        """Take over what earlier processes have handed over."""
        for one in handed_over:
            self._handed_over[(one.sender, one.message_id)] = one.answer

    def set_message_handler(self, handler: MessageHandler) -> None:
        """Hand messages to ``handler``; what came before waits for it."""
        self._message_handler = handler
        self._ready_for_messages.set()
        self._ready_for_keys.set()

    def set_key_handler(self, handler: KeyRotationHandler) -> None:
        """Hand new keys to ``handler``."""
        self._key_handler = handler
        self._ready_for_keys.set()

    async def on_receive(self, frame: Frame) -> None:
        """A Receive came."""
        sender, message_id = frame.id("sender_id"), frame.text("message_id")
        data = frame.text("encrypted_data")
        if sender is None or message_id is None or data is None:
            return
        payload = frame.payload
        message = Message(
            sender,
            message_id.lower(),
            data,
            payload.get("content_type"),
            frame.text("signature"),
            payload.get("ttl"),
            payload,
        )

        async def hand_over() -> None:
            assert self._message_handler is not None
            await self._message_handler(message)

        async def confirm(_: str | None) -> None:
            await self._send(encode("Ack", {"message_id": message_id, "sender_id": sender}))

        await self._take(_Delivery(sender, message.id, self._ready_for_messages, hand_over, confirm))

    async def on_key_rotation(self, frame: Frame) -> None:
        """A KeyRotationUpdate came."""
        sender, package, key_id = (
            frame.id("sender_id"),
            frame.text("encrypted_key_package"),
            frame.payload.get("key_id"),
        )
        if sender is None or package is None or key_id is None:
            return
        written = key_id_text(key_id)
        rotation = KeyRotation(sender, key_id, package)

        async def hand_over() -> str:
            # An application that takes no keys says so, rather than keep its peer waiting.
            taken = self._key_handler is not None and await self._key_handler(rotation)
            return "true" if taken else "false"

        async def confirm(answer: str | None) -> None:
            await self._send(key_rotation_ack(self._own_id(), sender, written, answer == "true"))

        await self._take(_Delivery(sender, f"key:{written}", self._ready_for_keys, hand_over, confirm))

    async def close(self) -> None:
        """Stop handlers that run; their messages come again. What was handled is confirmed first."""
        self._closing = True
        self._tasks.cancel_but(self._finishing_tasks)
        await self._tasks.join(FINISH_TIMEOUT)
        await self._tasks.cancel()

    async def _take(self, delivery: _Delivery) -> None:
        if delivery.key in self._handed_over:
            await delivery.confirm(self._handed_over[delivery.key])
        elif delivery.key not in self._pending and not self._closing:
            self._pending.add(delivery.key)
            chain = self._chains.setdefault(delivery.sender, deque())
            chain.append(delivery)
            if len(chain) == 1:
                self._tasks.spawn(self._work_through(delivery.sender, chain))

    async def _work_through(self, sender: str, chain: deque[_Delivery]) -> None:
        while chain and not self._closing:
            delivery = chain[0]
            answer = await self._hand_over(delivery)
            await self._store_and_confirm(delivery, answer)
            chain.popleft()
        del self._chains[sender]

    async def _hand_over(self, delivery: _Delivery) -> str | None:
        wait = FIRST_RETRY
        while True:
            await delivery.ready.wait()
            async with self._slots:
                try:
                    return await delivery.hand_over()
                except asyncio.CancelledError as error:
                    if self._closing:
                        raise
                    # Something inside the handler was cancelled, not this task.
                    failure: Exception = RuntimeError(f"the handler was cancelled: {error}")
                except Exception as error:
                    failure = error
            self._events.emit("handler_error", HandlerError(delivery.sender, delivery.id, failure))
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY)

    async def _store_and_confirm(self, delivery: _Delivery, answer: str | None) -> None:
        """Store the id, then confirm; a storage that fails is tried again, until the client closes."""
        wait = FIRST_RETRY
        while True:
            try:
                with self._finishing():
                    await self._storage.remember(HandedOver(delivery.sender, delivery.id, answer))
                    self._note_handed_over(delivery, answer)
                    await delivery.confirm(answer)
                return
            except StorageError as error:
                self._events.emit("error", error)
            if self._closing:
                return
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY)

    @contextlib.contextmanager
    def _finishing(self) -> Iterator[None]:
        """What happens in here is not cut off when the client closes."""
        task = asyncio.current_task()
        self._finishing_tasks.add(task)
        try:
            yield
        finally:
            self._finishing_tasks.discard(task)

    def _note_handed_over(self, delivery: _Delivery, answer: str | None) -> None:
        self._handed_over[delivery.key] = answer
        self._pending.discard(delivery.key)
        while len(self._handed_over) > REMEMBERED_IDS:
            del self._handed_over[next(iter(self._handed_over))]
