"""How a client comes into being."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any

from .client import Client
from .options import Options
from .registration import Accept
from .settings import Backoff, Watchdog
from .storage import MemoryStorage, Storage


class Connecting:
    """What :func:`connect` returns: to be awaited, or used with ``async with``."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        return self._open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._open()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def _open(self) -> Client:
        return Client(self._options, await self._options.storage.open())


def connect(
    url: str,
    *,
    access_token: str | None = None,
    storage: Storage | None = None,
    accept: Accept = "anyone",
    backoff: Backoff | None = None,
    watchdog: Watchdog | None = None,
    concurrency: int = 8,
) -> Connecting:
    """Open the storage and begin to connect to the relay at ``url``, such as ``wss://relay.example.org/ws``.

    ``client = await connect(url)``, or ``async with connect(url) as client``. The client is there at once, also without
    a network, and connects by itself; ``await client.registered()`` waits for it.

    Without ``storage`` the device ends with the process. ``accept="correspondents"`` takes messages only of devices to
    which this one has written. At most ``concurrency`` handlers run at the same time.
    """
    return Connecting(
        Options(
            url=url,
            storage=MemoryStorage() if storage is None else storage,
            access_token=access_token,
            accept=accept,
            backoff=backoff or Backoff(),
            watchdog=watchdog or Watchdog(),
            concurrency=concurrency,
        )
    )
