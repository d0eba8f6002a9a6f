"""The loop that keeps a registered connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable

from .backoff import Ending, Waits
from .environment import Environment
from .errors import StorageError
from .events import State, logger
from .frames import RegistrationRefused
from .link import Link
from .settings import Backoff, Watchdog
from .transport import DialFailed, SocketClosed

#: Uses an open socket until it ends; returns only where the client itself ended it.
Serve = Callable[[Link], Awaitable[Ending]]


class Connection:
    """Connects, and connects again; says where it stands."""

    def __init__(
        self,
        url: str,
        environment: Environment,
        backoff: Backoff,
        watchdog: Watchdog,
        serve: Serve,
        on_state: Callable[[State], None],
    ) -> None:
        self._url = url
        self._environment = environment
        self._watchdog = watchdog
        self._serve = serve
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._waits = Waits(backoff, environment.random)
        self._try_now = asyncio.Event()
        self._link: Link | None = None
        #: Since when the connection of now is registered.
        self._registered_at: float | None = None
        #: The relay said that another connection took up this device; its Close may get lost.
        self.replaced = False
        self.state = State("connecting")

    async def run(self) -> None:
        """Keep a connection until this task is cancelled."""
        self._set_state(State("connecting"))
        while True:
            self._try_now.clear()
            ending = await self._attempt()
            wait = self._waits.next(ending) if ending.retry else None
            self._set_state(State(ending.state, ending.reason, wait))
            await self._wait(wait)
            self._begin()

    def reconnect(self) -> None:
        """Try at once, whatever the reason to wait; a connection that stands is left alone."""
        if self.state.name in ("offline", "replaced"):
            self._begin()
            self._try_now.set()

    def system_woke(self) -> None:
        """Find out at once whether the connection outlived a sleep of the system."""
        if self._link is not None:
            self._link.check()
        elif self.state.next_attempt is not None:
            self._try_now.set()

    def online(self) -> None:
        """The connection is registered."""
        self._registered_at = self._loop.time()
        self._set_state(State("online"))

    def closed(self, reason: str) -> None:
        """The client has ended."""
        if self.state.name != "closed":
            self._set_state(State("closed", reason))

    async def _attempt(self) -> Ending:
        """Connect, and return how it ended."""
        self.replaced = False
        try:
            socket = await self._environment.dial(self._url, self._watchdog.ping + self._watchdog.timeout)
        except DialFailed as failed:
            return self._waits.after_refused_dial(failed)
        self._link = Link(socket, self._watchdog)
        try:
            return await self._serve(self._link)
        except SocketClosed as closed:
            return self._waits.after_close(closed, self.replaced)
        except RegistrationRefused as refused:
            return self._waits.after_refused_register(refused)
        except StorageError as error:
            return Ending(f"the storage failed: {error}")
        except Exception as error:
            logger.exception("the client failed; it connects again")
            return Ending(f"the client failed: {error!r}")
        finally:
            link, self._link = self._link, None
            if self._registered_at is not None:
                self._waits.connection_lasted(self._loop.time() - self._registered_at)
                self._registered_at = None
            await link.close()

    async def _wait(self, seconds: float | None) -> None:
        timer = None if seconds is None else self._loop.call_later(seconds, self._try_now.set)
        try:
            await self._try_now.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _begin(self) -> None:
        if self.state.name != "connecting":
            self._set_state(State("connecting"))

    def _set_state(self, state: State) -> None:
        self.state = state
        self._on_state(state)
