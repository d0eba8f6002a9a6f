"""Connecting, connecting again, and not connecting again."""

from __future__ import annotations

import asyncio

import pytest

from sealpost import Backoff, GaveUp, MemoryStorage, State
from sealpost.client import Client
from sealpost.storage import Identity
from sealpost.transport import DialFailed
from tests.support.fake_relay import ALICE, BOB, TOKEN, FakeRelay, answer_register
from tests.support.slow_storage import SlowStorage
from tests.support.virtual_time import now

from .conftest import MakeClient


def waits(relay: FakeRelay) -> list[float]:
    """The times between the attempts."""
    return [round(later - earlier, 6) for earlier, later in zip(relay.attempts, relay.attempts[1:])]


async def attempts(relay: FakeRelay, count: int) -> None:
    """Wait until this number of attempts was made."""
    while len(relay.attempts) < count:
        await asyncio.sleep(0.1)


async def state(client: Client, name: str) -> State:
    """Wait for a state."""
    while client.state.name != name:
        await asyncio.sleep(0.01)
    return client.state


async def test_waits_double_up_to_the_longest(relay: FakeRelay, make_client: MakeClient) -> None:
    relay.unreachable = DialFailed("no connection")
    client = await make_client()
    await attempts(relay, 9)
    assert waits(relay) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert client.state.reason == "no connection"


async def test_waits_are_random(relay: FakeRelay, make_client: MakeClient) -> None:
    relay.unreachable = DialFailed("no connection")
    relay.chance = 0.25
    client = await make_client()
    await attempts(relay, 4)
    assert waits(relay) == [0.25, 0.5, 1]
    assert client.state.next_attempt == 2


async def test_settings_scale_the_waits(relay: FakeRelay, make_client: MakeClient) -> None:
    relay.unreachable = DialFailed("no connection")
    await make_client(backoff=Backoff(0.1, 0.3))
    await attempts(relay, 5)
    assert waits(relay) == [0.1, 0.2, 0.3, 0.3]


async def test_a_minute_of_being_registered_starts_the_waits_again(relay: FakeRelay, make_client: MakeClient) -> None:
    relay.fail_next(DialFailed("down"), DialFailed("down"), DialFailed("down"))
    client = await make_client()
    socket = await relay.registered()
    await client.registered()
    for _ in range(3):
        # Something must be heard now and then.
        await asyncio.sleep(20)
        socket.say("Ping")
        await socket.next("Pong")
    socket.end()
    ended = now()
    await relay.connection()
    assert now() - ended == pytest.approx(1)


async def test_a_short_connection_does_not_start_the_waits_again(relay: FakeRelay, make_client: MakeClient) -> None:
    relay.fail_next(DialFailed("down"), DialFailed("down"))
    client = await make_client()
    socket = await relay.registered()
    await client.registered()
    await asyncio.sleep(20)
    socket.end()
    ended = now()
    await relay.connection()
    assert now() - ended == pytest.approx(4)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 4403])
async def test_after_some_close_codes_nothing_is_tried(relay: FakeRelay, client: Client, code: int) -> None:
    socket = await relay.registered()
    await client.registered()
    socket.end(code, "the relay says why")
    assert await state(client, "offline") == State("offline", "the relay says why", None)
    await asyncio.sleep(1000)
    assert len(relay.attempts) == 1


@pytest.mark.parametrize("code", [1000, 1006, 1009, 1011, 1012, 1013, 4401, 4408, 4499])
async def test_after_other_close_codes_the_client_comes_back(relay: FakeRelay, client: Client, code: int) -> None:
    (await relay.registered()).end(code)
    await relay.registered(resumed=True)
    assert await client.registered() == ALICE


async def test_a_restart_of_the_relay_spreads_the_clients(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    socket.end(1001)
    ended = now()
    await relay.connection()
    assert now() - ended == pytest.approx(10)


async def test_a_client_that_was_replaced_stays_away(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    socket.end(4409, "Replaced")
    assert (await state(client, "replaced")).next_attempt is None
    await asyncio.sleep(1000)
    assert len(relay.attempts) == 1


async def test_a_replaced_client_stays_away_where_the_close_was_lost(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    socket.say("Error", code=409, message="Replaced by a newer connection of this device.")
    socket.end(1006)
    await state(client, "replaced")


@pytest.mark.parametrize("code", [4409, 1008])
async def test_the_application_may_try_again(relay: FakeRelay, client: Client, code: int) -> None:
    (await relay.registered()).end(code)
    await state(client, "replaced" if code == 4409 else "offline")
    client.reconnect()
    await relay.registered(resumed=True)
    await client.registered()


async def test_reconnect_does_not_wait_for_the_next_attempt(relay: FakeRelay, client: Client) -> None:
    relay.unreachable = DialFailed("down")
    await attempts(relay, 7)
    relay.unreachable = None
    await asyncio.sleep(1)
    before = now()
    client.reconnect()
    await relay.connection()
    assert now() == before


async def test_retry_after_is_waited_for_and_a_random_part_more(relay: FakeRelay, make_client: MakeClient) -> None:
    relay.fail_next(DialFailed("the relay answered HTTP 429", 429, 20))
    relay.chance = 0.5
    client = await make_client()
    await relay.connection()
    assert waits(relay) == [30]
    assert client.state.name == "connecting"


async def test_registers_with_resume_and_receipts(relay: FakeRelay, make_client: MakeClient) -> None:
    await make_client(access_token="sealpost_secret", accept="correspondents")
    socket = await relay.connection()
    register = {"resumable": True, "receipts": True, "accept": "correspondents"}
    assert await socket.next("Register") == {**register, "access_token": "sealpost_secret"}
    answer_register(socket)
    await asyncio.sleep(1)
    socket.end()
    # A device that resumes needs no access token.
    assert await (await relay.connection()).next("Register") == {**register, "resume_token": TOKEN}


async def test_nothing_leaves_before_the_answer_to_register(relay: FakeRelay, client: Client) -> None:
    await client.send(BOB, "early")
    client.set_status("Away")
    socket = await relay.connection()
    await socket.next("Register")
    await socket.silence(5)
    answer_register(socket)
    await socket.next("Status")
    await socket.next("Send")


async def test_the_identity_is_stored_before_anything_else_leaves(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = SlowStorage(save_identity=3)
    client = await make_client(storage=storage)
    await client.send(BOB, "early")
    socket = await relay.registered()
    await socket.silence(2.9)
    await socket.next("Send")
    assert storage.identity == Identity(ALICE, TOKEN)


@pytest.mark.parametrize("code", [401, 403])
async def test_a_fresh_register_that_is_refused_ends_the_attempts(relay: FakeRelay, client: Client, code: int) -> None:
    socket = await relay.connection()
    await socket.next("Register")
    socket.say("Error", code=code, message="A valid access token is needed to register.")
    assert await state(client, "offline") == State("offline", "A valid access token is needed to register.", None)
    with pytest.raises(GaveUp, match="A valid access token"):
        await client.registered()
    await asyncio.sleep(1000)
    assert len(relay.attempts) == 1


@pytest.mark.parametrize("code", [429, 503])
async def test_a_register_that_is_put_off_is_tried_after_its_time(relay: FakeRelay, client: Client, code: int) -> None:
    socket = await relay.connection()
    await socket.next("Register")
    socket.say("Error", code=code, message="Later.", retry_after_ms=7000)
    await relay.registered()
    assert waits(relay) == [8]
    await client.registered()


async def test_a_blocked_device_keeps_its_identity(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    storage.identity = Identity(ALICE, TOKEN)
    client = await make_client(storage=storage)
    socket = await relay.connection()
    await socket.next("Register")
    socket.say("Error", code=403, message="This device is blocked.")
    await state(client, "offline")
    assert storage.identity == Identity(ALICE, TOKEN)
    assert client.device_id == ALICE


async def test_states_are_told(relay: FakeRelay, client: Client) -> None:
    told: list[str] = []
    client.on("state", lambda state: told.append(state.name))
    socket = await relay.registered()
    await client.registered()
    socket.end()
    await relay.connection()
    await client.close()
    assert told == ["online", "offline", "connecting", "closed"]


async def test_close_says_goodbye(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    await client.close()
    assert socket.closed_by_client
    assert client.state.name == "closed"
    with pytest.raises(GaveUp, match="closed"):
        await client.send(BOB, "too late")
    await client.close()


async def test_close_while_it_connects_or_waits(relay: FakeRelay, make_client: MakeClient) -> None:
    for refuse in (False, True):
        relay.unreachable = DialFailed("down") if refuse else None
        client = await make_client()
        await asyncio.sleep(0.2)
        await client.close()
        assert client.state.name == "closed"


async def test_frames_that_the_client_does_not_know_are_ignored(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    for text in ('{"type": "Future"}', "[]", "nonsense", '{"type": 7}', '{"type": "Ack", "payload": 3}', "[" * 100_000):
        socket.say_text(text)
    socket.say("Receive", message_id=5)
    socket.say("KeyRotationUpdate")
    socket.say("AuthRequest")
    socket.say("Error")
    socket.say("Ping")
    await socket.next("Pong")
    assert client.state.name == "online"
