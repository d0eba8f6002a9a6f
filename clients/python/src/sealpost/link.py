"""One connection: frames instead of text, answers to Ping, and the watchdog."""

from __future__ import annotations

import asyncio
import contextlib

from .events import logger
from .frames import PING, PONG, Frame, decode
from .settings import Watchdog
from .tasks import Tasks
from .transport import ABNORMAL, Socket, SocketClosed


class Link:
    """An open socket. It is dropped when the relay is silent for too long."""

    def __init__(self, socket: Socket, watchdog: Watchdog) -> None:
        self._socket = socket
        self._watchdog = watchdog
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._last_frame = self._loop.time()
        self._frames = 0
        self._frames_when_asked = 0
        self._dropped = False
        self._timer = self._loop.call_later(watchdog.ping, self._on_silence)
        #: Set when the relay has answered Register; before that no Ping may leave.
        self.registered = False

    async def send(self, text: str) -> None:
        """Write a frame; raises SocketClosed."""
        await self._socket.send(text)

    async def receive(self) -> Frame:
        """The next frame that is neither Ping nor Pong; raises SocketClosed."""
        while True:
            try:
                text = await self._socket.receive()
            except SocketClosed as closed:
                raise SocketClosed(ABNORMAL, "the relay did not answer") if self._dropped else closed from None
            self._frames += 1
            self._last_frame = self._loop.time()
            frame = decode(text)
            if frame is None:
                logger.warning("the relay sent something that is no JSON object with a type")
            elif frame.type == "Ping":
                await self._socket.send(PONG)
            elif frame.type != "Pong":
                return frame

    def check(self) -> None:
        """Ask the relay at once whether it is there: the system may have slept."""
        self._timer.cancel()
        self._ask()

    async def close(self) -> None:
        """End the watchdog, and the connection if it is still open."""
        self._timer.cancel()
        await self._tasks.cancel()
        await self._socket.close()

    def _on_silence(self) -> None:
        left = self._last_frame + self._watchdog.ping - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._on_silence)
        else:
            self._ask()

    def _ask(self) -> None:
        self._frames_when_asked = self._frames
        if self.registered:
            self._tasks.spawn(self._ping())
        self._timer = self._loop.call_later(self._watchdog.timeout, self._on_time_for_answer)

    def _on_time_for_answer(self) -> None:
        if self._frames > self._frames_when_asked:
            self._on_silence()
        else:
            self._dropped = True
            self._socket.abort()

    async def _ping(self) -> None:
        # Where the connection has ended, receive() says so, too.
        with contextlib.suppress(SocketClosed):
            await self._socket.send(PING)
