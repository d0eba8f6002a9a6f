"""The end of a device."""

from __future__ import annotations

import asyncio

import pytest

from sealpost import Client, GaveUp, MemoryStorage
from tests.support.fake_relay import BOB, FakeRelay

from .conftest import MakeClient


async def test_unregister_ends_the_device(relay: FakeRelay, make_client: MakeClient) -> None:
    storage = MemoryStorage()
    client = await make_client(storage=storage)
    socket = await relay.registered()
    written = await client.send(BOB, "written")
    await socket.next("Send")
    ending = asyncio.ensure_future(client.unregister())
    await socket.next("Unregister")
    socket.end(1000)
    await ending
    assert client.state.name == "closed"
    assert (storage.identity, storage.outbox) == (None, {})
    with pytest.raises(GaveUp, match="the device was ended"):
        await written.accepted
    await asyncio.sleep(1000)
    assert len(relay.attempts) == 1


async def test_unregister_needs_a_connection(client: Client) -> None:
    with pytest.raises(GaveUp, match="no connection"):
        await client.unregister()


async def test_a_connection_that_breaks_leaves_it_open(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    ending = asyncio.ensure_future(client.unregister())
    await socket.next("Unregister")
    socket.end(1006)
    with pytest.raises(GaveUp, match="before the relay confirmed"):
        await ending
    await relay.registered(resumed=True)
    await client.registered()


async def test_close_during_unregister(relay: FakeRelay, client: Client) -> None:
    socket = await relay.registered()
    await client.registered()
    ending = asyncio.ensure_future(client.unregister())
    await socket.next("Unregister")
    await client.close()
    with pytest.raises(GaveUp, match="closed"):
        await ending
