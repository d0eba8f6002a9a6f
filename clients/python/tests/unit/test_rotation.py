"""Key rotation, on both sides."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sealpost import Client, Expired, GaveUp, KeyRotation, MemoryStorage, Refused
from sealpost.frames import Frame, decode, key_id_text, key_rotation_ack
from tests.support.fake_relay import ALICE, BOB, FakeRelay, FakeSocket, answer_register

from .conftest import MakeClient
from .test_inbox import acked, message_id


def rotate(client: Client, package: str = "bmV3", key_id: Any = "epoch-7") -> asyncio.Future[None]:
    return asyncio.ensure_future(client.peer(BOB).rotate_key(package, key_id))


def answer(socket: FakeSocket, key_id: Any, success: bool) -> None:
    socket.say("KeyRotationAck", sender_id=BOB, recipient_id=ALICE, key_id=key_id, success=success)


async def test_a_key_is_taken(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    rotating = rotate(client)
    assert await socket.next("KeyRotationUpdate") == {
        "sender_id": ALICE,
        "recipient_id": BOB,
        "encrypted_key_package": "bmV3",
        "key_id": "epoch-7",
    }
    answer(socket, "epoch-7", True)
    await rotating


async def test_a_key_is_not_taken(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    rotating = rotate(client)
    await socket.next("KeyRotationUpdate")
    answer(socket, "another", True)
    answer(socket, "epoch-7", False)
    with pytest.raises(Refused) as refused:
        await rotating
    assert refused.value.code is None


async def test_each_rotation_has_an_id_of_its_own(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    rotating = [asyncio.ensure_future(client.peer(BOB).rotate_key("key")) for _ in range(2)]
    ids = {(await socket.next("KeyRotationUpdate"))["key_id"] for _ in range(2)}
    assert len(ids) == 2
    for one in ids:
        answer(socket, one, True)
    await asyncio.gather(*rotating)


async def test_a_key_is_repeated_on_each_connection_before_messages(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    rotating = rotate(client, key_id=7)
    await socket.next("KeyRotationUpdate")
    await client.send(BOB, "encrypted under the new key")
    await socket.next("Send")
    socket.end()
    socket = await relay.registered(resumed=True)
    await socket.next("KeyRotationUpdate")
    await socket.next("Send")
    answer(socket, 7, True)
    await rotating
    socket.end()
    assert "encrypted_data" in await (await relay.registered(resumed=True)).next("Send")


@pytest.mark.parametrize(("code", "error"), [(404, Refused), (410, Expired), (400, Refused)])
async def test_a_key_that_the_relay_does_not_take(
    relay: FakeRelay, client: Client, code: int, error: type[Exception]
) -> None:
    socket = await relay.registered()
    rotating = rotate(client)
    await socket.next("KeyRotationUpdate")
    socket.say("Error", code=code, message="no", key_id="epoch-7", recipient_id=BOB)
    with pytest.raises(error):
        await rotating


@pytest.mark.parametrize("code", [429, 507])
async def test_a_key_that_is_refused_for_now_leaves_again(relay: FakeRelay, client: Client, code: int) -> None:
    socket = await relay.registered()
    rotating = rotate(client)
    update = await socket.next("KeyRotationUpdate")
    socket.say("Error", code=code, message="later", key_id="epoch-7", recipient_id=BOB, retry_after_ms=500)
    assert await socket.next("KeyRotationUpdate") == update
    answer(socket, "epoch-7", True)
    await rotating


async def test_a_lost_identity_ends_what_was_written(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    rotating = rotate(client)
    await socket.next("KeyRotationUpdate")
    socket.end()
    socket = await relay.connection()
    await socket.next("Register")
    socket.say("Error", code=401, message="Resume token refused: register afresh.")
    with pytest.raises(GaveUp, match="identity lost"):
        await rotating
    await socket.next("Register")
    answer_register(socket, token="another")
    await socket.silence()


async def test_what_cannot_be_a_key_is_refused_at_once(client: Client) -> None:
    for package, key_id in (("key", 1.5), ("key", True), (b"key", "id")):
        with pytest.raises(ValueError, match="is a string"):
            await client.peer(BOB).rotate_key(package, key_id)  # type: ignore[arg-type]
    first = rotate(client)
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="under way"):
        await client.peer(BOB).rotate_key("key", "epoch-7")
    await client.close()
    with pytest.raises(GaveUp):
        await first


def update(socket: FakeSocket, key_id: str, package: str = "bmV3") -> None:
    """An update with a key id as it is written."""
    payload = json.dumps({"sender_id": BOB, "recipient_id": ALICE, "encrypted_key_package": package})
    socket.say_text(f'{{"type": "KeyRotationUpdate", "payload": {payload[:-1]}, "key_id": {key_id}}}}}')


async def test_the_answer_is_remembered(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    taken: list[KeyRotation] = []

    @client.on_key_rotation
    async def take(rotation: KeyRotation) -> bool:
        taken.append(rotation)
        return rotation.package == "good"

    socket = await relay.registered()
    update(socket, "7", "good")
    update(socket, '"7"', "bad")
    assert (await socket.next("KeyRotationAck"))["success"] is True
    assert (await socket.next("KeyRotationAck"))["success"] is False
    await client.close()
    client = await make_client(storage=storage)
    client.on_key_rotation(take)
    socket = await relay.registered(resumed=True)
    update(socket, '"7"', "good")
    assert await socket.next("KeyRotationAck") == {
        "sender_id": ALICE,
        "recipient_id": BOB,
        "key_id": "7",
        "success": False,
    }
    assert [rotation.key_id for rotation in taken] == [7, "7"]
    assert list(storage.handed_over) == [(BOB, "key:7"), (BOB, 'key:"7"')]


async def test_keys_and_messages_of_one_sender_have_one_order(relay: FakeRelay, client: Client) -> None:
    order: list[str] = []

    @client.on_message
    async def handle(message: Any) -> None:
        order.append(message.data)

    @client.on_key_rotation
    async def take(rotation: KeyRotation) -> bool:
        await asyncio.sleep(1)
        order.append(rotation.package)
        return True

    socket = await relay.registered()
    update(socket, "1", "key")
    socket.deliver(message_id(1), "under the key")
    await socket.next("KeyRotationAck")
    await acked(socket, 1)
    assert order == ["key", "under the key"]


async def test_a_handler_that_fails_is_asked_again(relay: FakeRelay, client: Client) -> None:
    tries = 0

    @client.on_key_rotation
    async def take(_: KeyRotation) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("not now")
        return True

    socket = await relay.registered()
    update(socket, "1")
    assert (await socket.next("KeyRotationAck"))["success"] is True


async def test_an_application_without_keys_says_no(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    update(socket, "1")
    await socket.silence()

    @client.on_message
    async def handle(_: object) -> None: ...

    assert (await socket.next("KeyRotationAck"))["success"] is False


@pytest.mark.parametrize("written", ["7", "7.0", "1e3", "-0.50", "12345678901234567890123", '"7"', '"\\u00e9"'])
def test_a_key_id_is_answered_as_it_was_written(written: str) -> None:
    frame = decode(f'{{"type": "KeyRotationUpdate", "payload": {{"key_id": {written}}}}}')
    assert isinstance(frame, Frame)
    answered = key_rotation_ack(ALICE, BOB, key_id_text(frame.payload["key_id"]), True)
    assert answered.endswith(f'"key_id": {written}}}}}')
    assert json.loads(answered)["payload"]["success"] is True
