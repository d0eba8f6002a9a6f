"""The least of a WebSocket client that the reference driver needs: text frames over asyncio streams."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from urllib.parse import urlsplit

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Closed(Exception):
    """The connection has ended; `code` is that of the Close, or 1006."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class MiniWebSocket:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, url: str) -> MiniWebSocket:
        """Connects and upgrades."""
        address = urlsplit(url)
        host, port = address.hostname or "", address.port or 80
        reader, writer = await asyncio.open_connection(host, port)
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET {address.path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        try:
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise Closed(1006) from error
        if not answer.startswith(b"HTTP/1.1 101"):
            writer.close()
            raise Closed(1006)
        return cls(reader, writer)

    def send(self, text: str) -> None:
        """Sends a text frame; a connection that has ended is noticed by `receive`."""
        self._frame(TEXT, text.encode())

    async def receive(self) -> str:
        """The next text frame; answers pings by the way."""
        while True:
            try:
                first, second = await self._reader.readexactly(2)
                length = second & 127
                if length == 126:
                    (length,) = struct.unpack("!H", await self._reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
                payload = await self._reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError) as error:
                raise Closed(1006) from error
            kind = first & 15
            if kind == TEXT:
                return payload.decode()
            if kind == PING:
                self._frame(PONG, payload)
            elif kind == CLOSE:
                raise Closed(struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005)

    def close(self, code: int | None = None) -> None:
        """Drops the connection, with a Close if a code is given."""
        if code is not None:
            self._frame(CLOSE, struct.pack("!H", code))
        self._writer.close()

    def _frame(self, kind: int, payload: bytes) -> None:
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([0x80 | kind])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65_536:
            head += bytes([0x80 | 126]) + struct.pack("!H", length)
        else:
            head += bytes([0x80 | 127]) + struct.pack("!Q", length)
        repeated = mask * (length // 4 + 1)
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:length], "big")).to_bytes(length, "big")
        if not self._writer.is_closing():
            self._writer.write(head + mask + masked)
