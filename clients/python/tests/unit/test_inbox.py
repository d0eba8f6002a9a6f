"""Messages are handed over once, in order, and confirmed when they are handled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealpost import Client, MemoryStorage, Message, StorageError
from sealpost.storage import HandedOver
from sealpost.storage.base import REMEMBERED_IDS
from tests.support.fake_relay import ALICE, BOB, CAROL, FakeRelay, FakeSocket
from tests.support.slow_storage import SlowStorage
from tests.support.virtual_time import now

from .conftest import MakeClient


def message_id(number: int) -> str:
    return f"11111111-1111-4111-8111-{number:012}"


class Application:
    """Handlers that end when the test says so."""

    def __init__(self, client: Client) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        client.on_message(self.handle)

    async def handle(self, message: Message) -> None:
        self.begun.append(message.data)
        if message.data in self.gates:
            await self.gates[message.data].wait()
        self.ended.append(message.data)

    def hold(self, *data: str) -> None:
        for one in data:
            self.gates[one] = asyncio.Event()

    def release(self, data: str) -> None:
        self.gates.pop(data).set()


async def settle() -> None:
    await asyncio.sleep(0.01)


async def acked(socket: FakeSocket, number: int, sender: str = BOB) -> None:
    assert await socket.next("Ack") == {"message_id": message_id(number), "sender_id": sender}


async def test_a_message_reaches_the_handler(relay: FakeRelay, client: Client) -> None:
    messages: list[Message] = []

    @client.on_message
    async def handle(message: Message) -> None:
        messages.append(message)

    socket = await relay.registered()
    socket.deliver(message_id(1), "hello", ttl=60, content_type="Text", signature="c2ln", more={"x": 1})
    await acked(socket, 1)
    (message,) = messages
    assert (message.sender, message.id, message.data) == (BOB, message_id(1), "hello")
    assert (message.ttl, message.content_type, message.signature) == (60, "Text", "c2ln")
    assert message.payload["more"] == {"x": 1}


async def test_what_comes_before_there_is_a_handler_waits(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    socket.deliver(message_id(1), "early")
    await socket.silence(20)
    application = Application(client)
    await acked(socket, 1)
    assert application.ended == ["early"]


async def test_it_is_acked_when_the_handler_has_ended(relay: FakeRelay, client: Client) -> None:
    application = Application(client)
    application.hold("slow")
    socket = await relay.registered()
    socket.deliver(message_id(1), "slow")
    await socket.silence(20)
    application.release("slow")
    await acked(socket, 1)


async def test_the_id_is_stored_before_the_ack(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = SlowStorage(remember=2)
    Application(await make_client(storage=storage))
    socket = await relay.registered()
    socket.deliver(message_id(1))
    await socket.silence(1.9)
    await acked(socket, 1)
    assert list(storage.handed_over) == [(BOB, message_id(1))]


async def test_a_repeat_is_acked_and_not_handed_over(relay: FakeRelay, client: Client) -> None:
    application = Application(client)
    socket = await relay.registered()
    socket.deliver(message_id(1), "once")
    await acked(socket, 1)
    socket.deliver(message_id(1).upper(), "once")
    assert (await socket.next("Ack"))["message_id"].lower() == message_id(1)
    assert application.begun == ["once"]


async def test_the_same_id_of_another_sender_is_another_message(relay: FakeRelay, client: Client) -> None:
    application = Application(client)
    socket = await relay.registered()
    socket.deliver(message_id(1), "bob's")
    await acked(socket, 1)
    socket.deliver(message_id(1), "carol's", sender=CAROL)
    await acked(socket, 1, CAROL)
    assert application.begun == ["bob's", "carol's"]


async def test_a_new_process_knows_what_was_handed_over(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    Application(client)
    socket = await relay.registered()
    socket.deliver(message_id(1))
    await acked(socket, 1)
    await client.close()
    application = Application(await make_client(storage=storage))
    socket = await relay.registered(resumed=True)
    socket.deliver(message_id(1))
    await acked(socket, 1)
    assert application.begun == []


async def test_what_is_being_handled_is_not_begun_twice(relay: FakeRelay, client: Client) -> None:
    application = Application(client)
    application.hold("slow")
    socket = await relay.registered()
    socket.deliver(message_id(1), "slow")
    await settle()
    socket.end()
    socket = await relay.registered(resumed=True)
    socket.deliver(message_id(1), "slow")
    await socket.silence()
    application.release("slow")
    await acked(socket, 1)
    await socket.silence()
    assert application.begun == ["slow"]


async def test_a_handler_may_end_without_a_connection(relay: FakeRelay, client: Client) -> None:
    application = Application(client)
    application.hold("slow")
    socket = await relay.registered()
    socket.deliver(message_id(1), "slow")
    await settle()
    socket.end()
    await settle()
    application.release("slow")
    socket = await relay.registered(resumed=True)
    await socket.silence()
    socket.deliver(message_id(1), "slow")
    await acked(socket, 1)
    assert application.begun == ["slow"]


async def test_messages_of_one_sender_keep_their_order(relay: FakeRelay, client: Client) -> None:
    application = Application(client)
    application.hold("first")
    socket = await relay.registered()
    socket.deliver(message_id(1), "first")
    socket.deliver(message_id(2), "second")
    socket.deliver(message_id(3), "other", sender=CAROL)
    await acked(socket, 3, CAROL)
    assert application.begun == ["first", "other"]
    application.release("first")
    await acked(socket, 1)
    await acked(socket, 2)
    assert application.ended == ["other", "first", "second"]


async def test_a_bounded_number_of_handlers_runs(relay: FakeRelay, make_client: MakeClient) -> None:
    client = await make_client(concurrency=2)
    application = Application(client)
    application.hold("0", "1", "2", "3")
    socket = await relay.registered()
    for number in range(4):
        socket.deliver(message_id(number), str(number), sender=f"bbbbbbbb-bbbb-4bbb-8bbb-{number:012}")
    await settle()
    assert application.begun == ["0", "1"]
    application.release("1")
    await settle()
    assert application.begun == ["0", "1", "2"]


async def test_a_failed_message_comes_again_and_the_next_ones_wait(relay: FakeRelay, client: Client) -> None:
    errors: list[Any] = []
    client.on("handler_error", errors.append)
    tries: list[tuple[str, float]] = []

    @client.on_message
    async def handle(message: Message) -> None:
        tries.append((message.data, now() - start))
        if message.data == "bad" and len(tries) < 9:
            raise RuntimeError("not now")

    socket = await relay.registered(messages_per_minute=60)
    await client.registered()
    start = now()
    socket.deliver(message_id(1), "bad")
    socket.deliver(message_id(2), "next")
    while len(tries) < 10:
        await asyncio.sleep(10)
        socket.say("Error", code=503, message="to keep the watchdog quiet")
    gaps = [round(later - earlier) for (_, earlier), (_, later) in zip(tries, tries[1:])]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 0]
    assert [data for data, _ in tries] == ["bad"] * 9 + ["next"]
    assert (errors[0].sender, errors[0].message_id, str(errors[0].error)) == (BOB, message_id(1), "not now")
    await acked(socket, 1)
    await acked(socket, 2)


async def test_something_that_is_cancelled_inside_a_handler_is_a_failure(relay: FakeRelay, client: Client) -> None:
    tries = 0

    @client.on_message
    async def handle(_: Message) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise asyncio.CancelledError

    socket = await relay.registered()
    socket.deliver(message_id(1))
    await acked(socket, 1)
    assert tries == 2


async def test_an_id_that_cannot_be_stored_is_not_acked(relay: FakeRelay, make_client: MakeClient) -> None:
    class BrokenStorage(MemoryStorage):
        broken = True

        async def remember(self, handed_over: HandedOver) -> None:
            if self.broken:
                raise StorageError("disk full")
            await super().remember(handed_over)

    storage = BrokenStorage()
    client = await make_client(storage=storage)
    errors: list[Any] = []
    client.on("error", errors.append)
    application = Application(client)
    socket = await relay.registered()
    socket.deliver(message_id(1))
    socket.deliver(message_id(1))
    await socket.silence(10)
    assert errors
    assert application.begun == ["hello"]
    storage.broken = False
    await acked(socket, 1)
    assert application.begun == ["hello"]


async def test_close_stops_handlers_and_their_messages_come_again(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    application = Application(client)
    application.hold("hello")
    socket = await relay.registered()
    socket.deliver(message_id(1))
    await settle()
    await client.close()
    assert (application.begun, application.ended) == (["hello"], [])
    application = Application(await make_client(storage=storage))
    socket = await relay.registered(resumed=True)
    socket.deliver(message_id(1))
    await acked(socket, 1)


async def test_what_was_handled_is_confirmed_before_the_end(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = SlowStorage(remember=1)
    client = await make_client(storage=storage)
    Application(client)
    socket = await relay.registered()
    socket.deliver(message_id(1), "handled")
    socket.deliver(message_id(2), "not begun")
    await settle()
    await client.close()
    await acked(socket, 1)
    assert socket._from_client.empty()
    assert list(storage.handed_over) == [(BOB, message_id(1))]


async def test_a_storage_that_hangs_does_not_keep_the_client_from_its_end(
    relay: FakeRelay, make_client: MakeClient
) -> None:
    class HangingStorage(MemoryStorage):
        async def remember(self, handed_over: HandedOver) -> None:
            await asyncio.Event().wait()

    client = await make_client(storage=HangingStorage())
    Application(client)
    (await relay.registered()).deliver(message_id(1))
    await settle()
    await client.close()


async def test_a_handler_may_close_the_client(relay: FakeRelay, client: Client) -> None:
    @client.on_message
    async def handle(_: Message) -> None:
        await client.close()

    socket = await relay.registered()
    socket.deliver(message_id(1))
    await asyncio.sleep(1)
    assert client.state.name == "closed"
    assert socket._from_client.empty()


async def test_a_handler_may_send(relay: FakeRelay, client: Client) -> None:
    @client.on_message
    async def handle(message: Message) -> None:
        await (await client.send(message.sender, "echo")).accepted

    socket = await relay.registered()
    socket.deliver(message_id(1))
    socket.ack(await socket.next("Send"))
    await acked(socket, 1)


async def test_the_oldest_ids_are_forgotten(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    for number in range(REMEMBERED_IDS):
        await storage.remember(HandedOver(BOB, message_id(number)))
    application = Application(await make_client(storage=storage))
    socket = await relay.registered()
    socket.deliver(message_id(0))
    await acked(socket, 0)
    socket.deliver(message_id(REMEMBERED_IDS), "new")
    await acked(socket, REMEMBERED_IDS)
    assert len(storage.handed_over) == REMEMBERED_IDS
    socket.deliver(message_id(0), "as if new")
    await acked(socket, 0)
    assert application.begun == ["new", "as if new"]


@pytest.mark.parametrize("status", ["Away", "Offline"])
async def test_a_status_is_said_again_on_each_connection(relay: FakeRelay, client: Client, status: Any) -> None:
    socket = await relay.registered()
    await client.registered()
    client.set_status(status)
    assert await socket.next("Status") == {"device_id": ALICE, "status": status}
    socket.end()
    socket = await relay.registered(resumed=True)
    assert (await socket.next("Status"))["status"] == status
    socket.say("Error", code=429, message="Rate limit exceeded", retry_after_ms=1000)
    assert (await socket.next("Status"))["status"] == status
    client.set_status("Online")
    assert (await socket.next("Status"))["status"] == "Online"
    socket.end()
    await (await relay.registered(resumed=True)).silence()
    with pytest.raises(ValueError, match="Online, Away, Offline"):
        client.set_status("Busy")  # type: ignore[arg-type]
