"""What leaves when, and what is said of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sealpost import Expired, GaveUp, MemoryStorage, Refused, StorageError
from sealpost.client import Client
from sealpost.storage import OutboxRecord
from sealpost.transport import DialFailed
from tests.support.fake_relay import ALICE, BOB, CAROL, EPOCH, FakeRelay, FakeSocket, answer_register
from tests.support.slow_storage import SlowStorage
from tests.support.virtual_time import now

from .conftest import MakeClient


async def test_a_message_from_send_to_processed(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(
        BOB, "c2VjcmV0", ttl=300, content_type="Text", signature="c2lnbmVk", fields={"x-thread": [1, 2.5]}
    )
    message = await socket.next("Send")
    assert message == {
        "recipient_id": BOB,
        "sender_id": ALICE,
        "message_id": handle.id,
        "encrypted_data": "c2VjcmV0",
        "ttl": 300,
        "content_type": "Text",
        "signature": "c2lnbmVk",
        "x-thread": [1, 2.5],
    }
    assert (client.unsent, handle.accepted.done()) == (1, False)
    socket.ack(message, "queued")
    await handle.accepted
    assert (client.unsent, handle.delivered.done()) == (0, False)
    socket.ack(message, "processed")
    await handle.delivered
    assert await handle.processed == "processed"


async def test_the_first_ack_may_be_the_last(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    socket.ack(await socket.next("Send"), "delivered")
    assert await handle.processed == "delivered"


async def test_one_message_is_under_way_for_each_recipient(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    for to, data in ((BOB, "b1"), (BOB, "b2"), (CAROL, "c1"), (BOB, "b3")):
        await client.send(to, data)
    first = await socket.next("Send")
    other = await socket.next("Send")
    assert (first["encrypted_data"], other["encrypted_data"]) == ("b1", "c1")
    await socket.silence()
    for expected in ("b2", "b3"):
        socket.ack(first)
        first = await socket.next("Send")
        assert first["encrypted_data"] == expected


async def test_a_recipient_in_capitals_is_the_same_recipient(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.send(BOB, "1")
    await client.send(BOB.upper(), "2")
    assert (await socket.next("Send"))["recipient_id"] == BOB
    await socket.silence()


async def test_at_most_32_messages_are_under_way(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    for number in range(40):
        await client.send(f"bbbbbbbb-bbbb-4bbb-8bbb-{number:012}", "data")
    messages = [await socket.next("Send") for _ in range(32)]
    await socket.silence()
    socket.ack(messages[5])
    await socket.next("Send")
    await socket.silence()


async def test_sends_that_run_at_the_same_time_keep_the_order_of_the_calls(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await asyncio.gather(*(client.send(BOB, str(number)) for number in range(5)))
    for number in range(5):
        message = await socket.next("Send")
        assert message["encrypted_data"] == str(number)
        socket.ack(message)


@pytest.mark.parametrize(
    ("code", "more"), [(503, {}), (507, {}), (403, {"limit": "queued_bytes"}), (401, {}), (507, {"limit": 5})]
)
async def test_what_is_refused_for_now_is_repeated(
    relay: FakeRelay, client: Client, code: int, more: dict[str, Any]
) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    await client.send(BOB, "next")
    message = await socket.next("Send")
    for wait in (30, 60, 120, 240, 480, 600, 600):
        socket.refuse(message, code, **more)
        before = now()
        while True:
            kind = (await socket._from_client.get())["type"]
            if kind == "Send":
                break
            assert kind == "Ping"
            socket.say("Pong")
        assert now() - before == pytest.approx(wait)
    socket.ack(message)
    await handle.accepted
    assert (await socket.next("Send"))["encrypted_data"] == "next"


async def test_the_relay_may_name_the_wait(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.send(BOB, "data")
    message = await socket.next("Send")
    socket.refuse(message, 503, retry_after_ms=1500)
    before = now()
    assert await socket.next("Send") == message
    assert now() - before == pytest.approx(1.5)


async def test_a_full_queue_of_one_recipient_holds_up_nobody_else(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.send(BOB, "data")
    socket.refuse(await socket.next("Send"), 507)
    await asyncio.sleep(0.1)
    await client.send(CAROL, "data")
    assert (await socket.next("Send"))["recipient_id"] == CAROL


@pytest.mark.parametrize("code", [400, 403, 404, 409, 413, 499])
async def test_other_codes_refuse_the_message(relay: FakeRelay, client: Client, code: int) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    socket.refuse(await socket.next("Send"), code)
    for outcome in (handle.accepted, handle.delivered, handle.processed):
        with pytest.raises(Refused) as refused:
            await outcome
        assert refused.value.code == code
    assert client.unsent == 0
    await client.send(BOB, "next")
    await socket.next("Send")


async def test_a_message_that_expires_before_its_ack(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    socket.refuse(await socket.next("Send"), 410)
    with pytest.raises(Expired):
        await handle.accepted


async def test_a_message_that_expires_after_its_ack(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    message = await socket.next("Send")
    socket.ack(message)
    socket.refuse(message, 410)
    socket.refuse(message, 410)
    await handle.accepted
    for outcome in (handle.delivered, handle.processed):
        with pytest.raises(Expired) as expired:
            await outcome
        assert expired.value.code == 410


async def test_after_429_nothing_new_leaves_until_the_refused_are_through(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.send(BOB, "b1")
    await client.send(CAROL, "c1")
    b1, c1 = await socket.next("Send"), await socket.next("Send")
    socket.refuse(b1, 429, retry_after_ms=1000, limit=60, remaining=0)
    socket.refuse(c1, 429, retry_after_ms=2000, limit=60, remaining=0)
    await asyncio.sleep(0)
    start = now()
    await client.send(ALICE, "new")
    assert await socket.next("Send") == b1
    assert now() - start == pytest.approx(1)
    socket.ack(b1)
    assert await socket.next("Send") == c1
    assert now() - start == pytest.approx(2)
    await socket.silence()
    socket.ack(c1)
    assert (await socket.next("Send"))["encrypted_data"] == "new"


async def test_what_was_not_answered_is_written_again_oldest_first(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    for to in (CAROL, BOB, BOB):
        await client.send(to, "data")
    written = [await socket.next("Send"), await socket.next("Send")]
    socket.end()
    socket = await relay.registered(resumed=True)
    assert [await socket.next("Send"), await socket.next("Send")] == written
    await socket.silence()


async def test_a_refusal_keeps_its_wait_over_connections(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.send(BOB, "data")
    message = await socket.next("Send")
    socket.refuse(message, 507)
    start = now()
    await asyncio.sleep(10)
    socket.end()
    socket = await relay.registered(resumed=True)
    assert await socket.next("Send") == message
    assert now() - start == pytest.approx(30)


async def test_a_new_process_takes_up_the_outbox(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    for number in range(3):
        await client.send(BOB, str(number))
    await relay.connection()
    await client.close()
    client = await make_client(storage=storage)
    assert client.unsent == 3
    receipts: list[Any] = []
    client.on("receipt", receipts.append)
    socket = await relay.registered()
    for number in range(3):
        message = await socket.next("Send")
        assert message["encrypted_data"] == str(number)
        socket.ack(message, "queued")
        socket.ack(message, "processed")
        socket.ack(message, "processed")
    await asyncio.sleep(1)
    assert [receipt.status for receipt in receipts] == ["queued", "processed"] * 3
    assert storage.outbox == {}


async def test_a_device_that_a_new_process_resumes_begins_with_one_token(
    relay: FakeRelay, make_client: MakeClient
) -> None:
    client = await make_client()
    for to in (BOB, CAROL):
        await client.send(to, "data")
    socket = await relay.registered(resumed=True, messages_per_minute=60, burst=60)
    await socket.next("Send")
    before = now()
    await socket.next("Send")
    assert now() - before == pytest.approx(1 / 0.9)


async def test_the_allowance_is_not_overdrawn(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered(messages_per_minute=60, burst=10)
    times = []
    for number in range(14):
        await client.send(f"bbbbbbbb-bbbb-4bbb-8bbb-{number:012}", "data")
    start = now()
    for _ in range(14):
        await socket.next("Send")
        times.append(round(now() - start, 6))
    assert times == [0.0] * 9 + [round(wait / 0.9, 6) for wait in range(1, 6)]


async def test_what_waits_for_its_ttl_expires(relay: FakeRelay, client: Client) -> None:
    await (await relay.connection()).next("Register")
    start = now()
    handle = await client.send(BOB, "data", ttl=15)
    lasting = await client.send(BOB, "data", ttl=10**30)
    with pytest.raises(Expired) as expired:
        await handle.accepted
    assert now() - start == pytest.approx(15)
    assert expired.value.code is None
    assert client.unsent == 1
    assert not lasting.accepted.done()


async def test_a_repeat_carries_what_is_left_of_the_ttl(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.send(BOB, "data", ttl=100)
    assert (await socket.next("Send"))["ttl"] == 100
    await asyncio.sleep(20)
    socket.end()
    socket = await relay.registered(resumed=True)
    assert (await socket.next("Send"))["ttl"] == 79
    await asyncio.sleep(25)
    relay.unreachable = DialFailed("down")
    socket.end()
    await asyncio.sleep(53.6)
    relay.unreachable = None
    client.reconnect()
    socket = await relay.registered(resumed=True)
    assert (await socket.next("Send"))["ttl"] == 1


async def test_the_ttl_goes_on_while_no_process_runs(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    for age, ttl in ((50, 60), (70, 60), (-100, 60)):
        record = OutboxRecord(f"id-{age}", BOB, {"encrypted_data": str(age)}, ttl, EPOCH + now() - age)
        await storage.put(record)
    client = await make_client(storage=storage)
    ended: list[Any] = []
    client.on("expired", ended.append)
    socket = await relay.registered()
    message = await socket.next("Send")
    assert (message["encrypted_data"], message["ttl"]) == ("50", 10)
    assert [(failed.message_id, type(failed.error)) for failed in ended] == [("id-70", Expired)]
    socket.ack(message)
    assert (await socket.next("Send"))["ttl"] == 60, "a wall clock that was set back takes nothing away"


async def test_an_answer_counts_also_after_the_ttl(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data", ttl=2)
    message = await socket.next("Send")
    await asyncio.sleep(3)
    socket.ack(message)
    await handle.accepted


async def test_a_refusal_for_now_after_the_ttl_is_final(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data", ttl=2)
    message = await socket.next("Send")
    await asyncio.sleep(3)
    socket.refuse(message, 503, retry_after_ms=1)
    with pytest.raises(Expired):
        await handle.accepted
    await socket.silence()


async def test_ttl_0_needs_a_connection(relay: FakeRelay, client: Client) -> None:
    handle = await client.send(BOB, "now", ttl=0)
    with pytest.raises(Expired):
        await handle.accepted
    socket = await relay.registered()
    await client.registered()
    handle = await client.send(BOB, "now", ttl=0)
    message = await socket.next("Send")
    assert message["ttl"] == 0
    socket.ack(message, "delivered")
    assert await handle.processed == "delivered"


async def test_ttl_0_ends_with_its_connection(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    socket = await relay.registered()
    await client.registered()
    handles = [await client.send(BOB, "now", ttl=0) for _ in range(2)]
    await socket.next("Send")
    socket.end()
    for handle in handles:
        with pytest.raises(GaveUp):
            await handle.accepted
    assert storage.outbox == {}
    await (await relay.registered(resumed=True)).silence()


async def test_what_is_larger_than_the_limit_does_not_leave(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered(message_bytes=1000)
    large = await client.send(BOB, "x" * 1000)
    await client.send(BOB, "small")
    assert (await socket.next("Send"))["encrypted_data"] == "small"
    with pytest.raises(Refused) as refused:
        await large.accepted
    assert refused.value.code == 413


async def test_after_1009_the_largest_message_is_dropped(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    small = await client.send(BOB, "x")
    large = await client.send(CAROL, "x" * 5000)
    await socket.next("Send")
    await socket.next("Send")
    socket.end(1009, "too large")
    with pytest.raises(Refused) as refused:
        await large.accepted
    assert refused.value.code == 413
    socket = await relay.registered(resumed=True)
    assert (await socket.next("Send"))["message_id"] == small.id
    await socket.silence()


async def test_a_lost_identity(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    lost: list[Any] = []
    client.on("identity_lost", lost.append)
    socket = await relay.registered()
    acked = await client.send(CAROL, "acked")
    socket.ack(await socket.next("Send"))
    await acked.accepted
    written = await client.send(BOB, "written")
    fresh = await client.send(BOB, "not written")
    await socket.next("Send")
    socket.end()
    socket = await relay.connection()
    await socket.next("Register")
    socket.say("Error", code=401, message="Resume token refused: register afresh.")
    with pytest.raises(GaveUp, match="identity lost"):
        await written.accepted
    with pytest.raises(GaveUp, match="identity lost"):
        await acked.processed
    assert "resume_token" not in await socket.next("Register")
    assert [event.device_id for event in lost] == [ALICE]
    assert (storage.identity, list(storage.outbox)) == (None, [fresh.id])
    answer_register(socket, device_id=CAROL, token="another")
    message = await socket.next("Send")
    assert (message["sender_id"], message["message_id"]) == (CAROL, fresh.id)
    socket.ack(message)
    await fresh.accepted
    assert client.device_id == CAROL


async def test_a_message_is_stored_before_it_is_written(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = SlowStorage(mark_written=2)
    client = await make_client(storage=storage)
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    assert handle.id in storage.outbox
    await socket.silence(1.9)
    await socket.next("Send")
    assert storage.outbox[handle.id].written


async def test_a_connection_that_ends_while_the_store_is_busy(relay: FakeRelay, make_client: MakeClient) -> None:
    client = await make_client(storage=SlowStorage(mark_written=2))
    socket = await relay.registered()
    await client.send(BOB, "data")
    await asyncio.sleep(1)
    socket.end()
    await asyncio.sleep(0.1)
    assert socket._from_client.empty()
    socket = await relay.registered(resumed=True)
    await socket.next("Send")
    await socket.silence()


class BrokenStorage(MemoryStorage):
    """Fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _check(self, what: str) -> None:
        if what in self.broken:
            raise StorageError(f"no {what}")

    async def put(self, record: OutboxRecord) -> None:
        self._check("put")
        await super().put(record)

    async def mark_written(self, message_ids: Any) -> None:
        self._check("mark")
        await super().mark_written(message_ids)

    async def remove(self, message_id: str) -> None:
        self._check("remove")
        await super().remove(message_id)

    async def save_identity(self, identity: Any) -> None:
        self._check("identity")
        await super().save_identity(identity)


async def broken(make_client: MakeClient, *what: str) -> tuple[Client, BrokenStorage, list[Any]]:
    storage = BrokenStorage()
    storage.broken.update(what)
    client = await make_client(storage=storage)
    errors: list[Any] = []
    client.on("error", errors.append)
    return client, storage, errors


async def test_send_fails_where_the_message_cannot_be_stored(relay: FakeRelay, make_client: MakeClient) -> None:
    client, storage, errors = await broken(make_client, "put")
    socket = await relay.registered()
    with pytest.raises(StorageError):
        await client.send(BOB, "lost")
    storage.broken.clear()
    await client.send(BOB, "kept")
    assert (await socket.next("Send"))["encrypted_data"] == "kept"
    assert (len(errors), client.unsent) == (1, 1)


async def test_nothing_is_written_that_could_not_be_marked(relay: FakeRelay, make_client: MakeClient) -> None:
    client, storage, errors = await broken(make_client, "mark")
    socket = await relay.registered()
    await client.send(BOB, "data")
    await socket.silence(20)
    storage.broken.clear()
    await socket.next("Send")
    assert len(errors) == 1


async def test_an_ack_counts_also_where_it_cannot_be_stored(relay: FakeRelay, make_client: MakeClient) -> None:
    client, _, errors = await broken(make_client, "remove")
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    socket.ack(await socket.next("Send"))
    await handle.accepted
    await asyncio.sleep(0.1)
    assert len(errors) == 1


async def test_an_identity_that_cannot_be_stored_is_not_used(relay: FakeRelay, make_client: MakeClient) -> None:
    client, storage, errors = await broken(make_client, "identity")
    await client.send(BOB, "data")
    socket: FakeSocket = await relay.registered()
    await asyncio.sleep(0.1)
    assert socket.closed_by_client
    assert client.state.reason == "the storage failed: no identity"
    assert len(errors) == 1
    storage.broken.clear()
    socket = await relay.connection()
    assert (await socket.next("Register"))["resume_token"], "the device is not left behind"
    answer_register(socket, resumed=True)
    await socket.next("Send")


async def test_unsent_is_told(relay: FakeRelay, client: Client) -> None:
    counts: list[int] = []
    client.on("unsent", counts.append)
    socket = await relay.registered()
    await client.send(BOB, "1")
    await client.send(BOB, "2")
    socket.ack(await socket.next("Send"))
    socket.refuse(await socket.next("Send"), 404)
    await asyncio.sleep(0.1)
    assert counts == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"to": "bob"}, "is not the id of a device"),
        ({"to": "00000000-0000-0000-0000-000000000000"}, "is not the id of a device"),
        ({"data": b"bytes"}, "data is a string"),
        ({"ttl": -1}, "ttl is a whole number"),
        ({"ttl": 1.5}, "ttl is a whole number"),
        ({"ttl": True}, "ttl is a whole number"),
        ({"signature": 7}, "signature is a string"),
        ({"fields": {"ttl": 3}}, "ttl, which the client writes itself"),
        ({"fields": {5: "x"}}, "names of fields are strings"),
        ({"fields": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"fields": {"x": object()}}, "cannot be written as JSON"),
    ],
)
async def test_what_the_relay_could_not_read_is_refused_at_once(
    client: Client, arguments: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        await client.send(**{"to": BOB, "data": "data", **arguments})
    assert client.unsent == 0


@pytest.mark.parametrize(("depth", "good"), [(126, True), (127, False), (5000, False)])
async def test_fields_may_be_nested_as_deep_as_the_relay_reads(client: Client, depth: int, good: bool) -> None:
    nested: Any = "x"
    for _ in range(depth):
        nested = [nested]
    if good:
        await client.send(BOB, "data", fields={"x": nested})
    else:
        with pytest.raises(ValueError, match=r"nested deeper|written as JSON"):
            await client.send(BOB, "data", fields={"x": nested})


async def test_fields_are_copied(relay: FakeRelay, client: Client) -> None:
    fields = {"x": [1]}
    await client.send(BOB, "data", fields=fields)
    fields["x"].append(2)
    assert (await (await relay.registered()).next("Send"))["x"] == [1]
