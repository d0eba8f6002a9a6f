"""Silence, Pings, and systems that sleep."""

from __future__ import annotations

import asyncio

from sealpost import Watchdog
from sealpost.client import Client
from sealpost.transport import DialFailed
from tests.support.fake_relay import FakeRelay
from tests.support.virtual_time import now

from .conftest import MakeClient


async def test_a_ping_is_answered_at_once(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    before = now()
    socket.say("Ping")
    socket.say("Ping")
    await socket.next("Pong")
    await socket.next("Pong")
    assert now() == before


async def test_silence_is_asked_about(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    start = now()
    await socket.next("Ping")
    assert now() - start == 30
    socket.say("Pong")
    await socket.next("Ping")
    assert now() - start == 60
    assert not socket.aborted


async def test_a_silent_connection_is_dropped(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    start = now()
    await socket.next("Ping")
    while not socket.aborted:
        await asyncio.sleep(0.5)
    assert now() - start == 40
    await asyncio.sleep(0.1)
    assert (client.state.name, client.state.reason) == ("offline", "the relay did not answer")
    await relay.registered(resumed=True)


async def test_any_frame_counts_as_an_answer(relay: FakeRelay, make_client: MakeClient) -> None:
    await make_client(watchdog=Watchdog(1, 1))
    socket = await relay.registered()
    await socket.next("Ping")
    await asyncio.sleep(0.9)
    socket.say("Error", code=503, message="The relay is draining. Reconnect.")
    await asyncio.sleep(0.9)
    assert not socket.aborted


async def test_a_relay_that_does_not_answer_register_is_dropped_without_a_ping(
    relay: FakeRelay, client: Client
) -> None:
    socket = await relay.connection()
    await socket.next("Register")
    await socket.silence(39)
    await relay.registered()
    assert socket.aborted
    await client.registered()


async def test_after_a_sleep_the_connection_is_checked_at_once(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    start = now()
    relay.wall_offset += 3600
    await socket.next("Ping")
    assert now() - start <= 5


async def test_after_a_sleep_an_attempt_is_made_at_once(relay: FakeRelay, client: Client) -> None:
    relay.unreachable = DialFailed("down")
    while client.state.next_attempt != 60:
        await asyncio.sleep(1)
    relay.unreachable = None
    start = now()
    relay.wall_offset += 3600
    await relay.registered()
    assert now() - start <= 5


async def test_a_sleep_wakes_no_client_that_is_to_stay_away(relay: FakeRelay, client: Client) -> None:
    (await relay.registered()).end(4409)
    await asyncio.sleep(1)
    relay.wall_offset += 3600
    await asyncio.sleep(100)
    assert len(relay.attempts) == 1
    assert client.state.name == "replaced"
