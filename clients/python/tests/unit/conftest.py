"""Unit tests run in virtual time, against a relay that the test speaks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Callable

import pytest_asyncio

from sealpost.client import Client
from tests.support.fake_relay import FakeRelay
from tests.support.virtual_time import VirtualTime

MakeClient = Callable[..., Awaitable[Client]]


@pytest_asyncio.fixture(autouse=True)
async def virtual_time() -> AsyncIterator[None]:
    with VirtualTime(asyncio.get_running_loop()):
        yield


@pytest_asyncio.fixture
async def relay(virtual_time: None) -> FakeRelay:
    return FakeRelay()


@pytest_asyncio.fixture
async def make_client(relay: FakeRelay) -> AsyncIterator[MakeClient]:
    """Make clients that are closed after the test, and see that they leave no task."""
    clients: list[Client] = []

    async def make(**options: Any) -> Client:
        clients.append(await relay.client(**options))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == [], "the clients left tasks behind"


@pytest_asyncio.fixture
async def client(make_client: MakeClient) -> Client:
    return await make_client()
