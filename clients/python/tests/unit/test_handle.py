"""Outcomes: awaited often, late, never, or by a task that is cancelled."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from sealpost import Expired, GaveUp, Refused
from sealpost.client import Client
from tests.support.fake_relay import BOB, FakeRelay


async def test_an_outcome_may_be_awaited_many_times(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")

    async def wait() -> str:
        return await handle.processed

    early = [asyncio.ensure_future(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    socket.ack(await socket.next("Send"), "processed")
    assert await asyncio.gather(*early) == ["processed"] * 3
    assert [await handle.processed, await handle.processed] == ["processed"] * 2


async def test_a_rejection_may_be_awaited_many_times(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    handle = await client.send(BOB, "data")
    socket.refuse(await socket.next("Send"), 404)
    for _ in range(3):
        with pytest.raises(Refused):
            await handle.accepted


async def test_to_cancel_a_wait_does_not_cancel_the_send(relay: FakeRelay, client: Client) -> None:
    handle = await client.send(BOB, "data")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(handle.accepted, 1)
    socket = await relay.registered()
    socket.ack(await socket.next("Send"))
    await handle.accepted


async def test_to_cancel_a_send_leaves_no_half_of_a_message(relay: FakeRelay, client: Client) -> None:
    sending = asyncio.ensure_future(client.send(BOB, "data"))
    await asyncio.sleep(0)
    sending.cancel()
    socket = await relay.registered()
    socket.ack(await socket.next("Send"))
    await asyncio.sleep(0.1)
    assert client.unsent == 0


async def test_a_rejection_that_nobody_awaits_is_silent(relay: FakeRelay, client: Client) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    socket = await relay.registered()
    await client.send(BOB, "data")
    waiting = asyncio.ensure_future(asyncio.wait_for((await client.send(BOB, "data")).accepted, 0.1))
    socket.refuse(await socket.next("Send"), 404)
    with pytest.raises(asyncio.TimeoutError):
        await waiting
    socket.refuse(await socket.next("Send"), 404)
    await asyncio.sleep(0.1)
    gc.collect()
    assert complaints == []


async def test_a_closed_client_ends_what_is_awaited(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    open_handle = await client.send(BOB, "data")
    acked = await client.send(BOB, "data")
    socket.ack(await socket.next("Send"))
    del acked
    waiting = asyncio.ensure_future(asyncio.wait_for(open_handle.processed, 1000))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(GaveUp, match="closed"):
        await waiting


async def test_receipts_of_messages_of_an_earlier_process_are_events(relay: FakeRelay, client: Client) -> None:
    receipts: list[Any] = []
    ended: list[Any] = []
    client.on("receipt", receipts.append)
    client.on("expired", ended.append)
    socket = await relay.registered()
    for _ in range(2):
        socket.say("Ack", message_id="11111111-1111-4111-8111-111111111111", status="processed")
        socket.say("Error", message_id="22222222-2222-4222-8222-222222222222", code=410, message="expired")
    await asyncio.sleep(0.1)
    assert [receipt.status for receipt in receipts] == ["processed"]
    assert [type(failed.error) for failed in ended] == [Expired]


async def test_a_listener_that_raises_harms_nobody(
    relay: FakeRelay, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[str] = []

    def bad(_: object) -> None:
        raise RuntimeError("a bug of the application")

    client.on("state", bad)
    stop = client.on("state", lambda state: states.append(state.name))
    await relay.registered()
    await client.registered()
    assert states == ["online"]
    assert "a listener for the event state raised" in caplog.text
    stop()
    stop()
    with pytest.raises(ValueError, match="unknown event 'stat'"):
        client.on("stat", bad)  # type: ignore[call-overload]
