"""End-to-end tests run against the real relay."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Callable

import pytest
import pytest_asyncio

from sealpost import Backoff, Client, SqliteStorage, Watchdog, connect
from tests.support.relay_process import RelayProcess

StartRelay = Callable[..., Awaitable[RelayProcess]]
MakeDevice = Callable[..., Awaitable[Client]]


@pytest_asyncio.fixture
async def start_relay(tmp_path: Path) -> AsyncIterator[StartRelay]:
    """Start relays that end with the test."""
    relays: list[RelayProcess] = []

    async def start(**settings: str) -> RelayProcess:
        directory = tmp_path / f"relay-{len(relays)}"
        directory.mkdir()
        relay = RelayProcess(directory, rate_limit__messages_per_minute="6000", **settings)
        relays.append(relay)
        await relay.start()
        return relay

    yield start
    for relay in relays:
        await relay.stop(signal.SIGKILL)


@pytest_asyncio.fixture
async def relay(start_relay: StartRelay) -> RelayProcess:
    return await start_relay()


@pytest_asyncio.fixture
async def make_device(relay: RelayProcess, tmp_path: Path) -> AsyncIterator[MakeDevice]:
    """Make clients with a storage by name, which end with the test and leave no task."""
    clients: list[Client] = []

    async def make(name: str, url: str | None = None, access_token: str | None = None) -> Client:
        client = await connect(
            url or relay.url,
            storage=SqliteStorage(tmp_path / f"{name}.sqlite3"),
            access_token=access_token,
            backoff=Backoff(0.02, 0.2),
            watchdog=Watchdog(5, 5),
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest_asyncio.fixture(autouse=True)
async def no_task_is_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == [], f"{request.node.name} left tasks behind"
