"""WebSocket connections, as the client needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .version import __version__

#: The close code for a connection that broke without a Close.
ABNORMAL = 1006
#: How long a Close may take.
CLOSE_TIMEOUT = 2.0


class SocketClosed(Exception):
    """The connection has ended."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class DialFailed(Exception):
    """No connection came about; ``status`` is the answer of HTTP, if there was one."""

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


class Socket(Protocol):
    """One open connection."""

    async def send(self, text: str) -> None:
        """Write one text message; raises SocketClosed."""

    async def receive(self) -> str:
        """Read the next text message; raises SocketClosed."""
        ...

    async def close(self) -> None:
        """Send Close 1000, and wait a little for the answer."""

    def abort(self) -> None:
        """Drop the connection at once; receive() raises SocketClosed then."""


#: Opens a connection to a URL within a number of seconds; raises DialFailed.
Dial = Callable[[str, float], Awaitable[Socket]]


class WebSocket:
    """A connection of the library websockets."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        """Write one text message."""
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            raise _socket_closed(closed) from None

    async def receive(self) -> str:
        """Read the next text message; binary ones are not part of the protocol."""
        try:
            while True:
                message = await self._connection.recv()
                if isinstance(message, str):
                    return message
        except ConnectionClosed as closed:
            raise _socket_closed(closed) from None

    async def close(self) -> None:
        """Send Close 1000."""
        await self._connection.close()

    def abort(self) -> None:
        """Drop the connection."""
        self._connection.transport.abort()


async def dial(url: str, timeout: float) -> Socket:
    """Open a WebSocket."""
    try:
        connection = await websocket_connect(
            url,
            compression=None,
            user_agent_header=f"sealpost-python/{__version__}",
            open_timeout=timeout,
            # The watchdog of this package does it, with frames that the relay's limits know.
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT,
            # The operator of the relay sets the size of messages.
            max_size=None,
        )
    except InvalidStatus as refused:
        response = refused.response
        raise DialFailed(
            f"the relay answered HTTP {response.status_code}",
            response.status_code,
            _seconds(response.headers.get("Retry-After")),
        ) from None
    except (OSError, WebSocketException, asyncio.TimeoutError, EOFError) as error:
        raise DialFailed(f"no connection: {error or type(error).__name__}") from error
    return WebSocket(connection)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdigit() else None


def _socket_closed(closed: ConnectionClosed) -> SocketClosed:
    if closed.rcvd is None:
        return SocketClosed(ABNORMAL, "the network broke")
    return SocketClosed(closed.rcvd.code, closed.rcvd.reason)
