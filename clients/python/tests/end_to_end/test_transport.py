"""How refusals of HTTP and of the network look."""

from __future__ import annotations

import asyncio

import pytest

from sealpost.transport import DialFailed, SocketClosed, dial
from tests.support.relay_process import RelayProcess


async def answering(*lines: str) -> asyncio.AbstractServer:
    """A server that says the same to everybody."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join((*lines, "", "")).encode())
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def url_of(server: asyncio.AbstractServer) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("-3", None), ("²", None)])
async def test_a_refusal_with_retry_after(header: str, seconds: float | None) -> None:
    server = await answering("HTTP/1.1 503 Service Unavailable", f"Retry-After: {header}", "Content-Length: 0")
    async with server:
        with pytest.raises(DialFailed, match=r"HTTP 503|no connection") as failed:
            await dial(url_of(server), 5)
    assert failed.value.retry_after == seconds


async def test_a_server_that_is_no_websocket() -> None:
    server = await answering("SSH-2.0-OpenSSH_9.2")
    async with server:
        with pytest.raises(DialFailed, match="no connection"):
            await dial(url_of(server), 5)


async def test_nobody_listens() -> None:
    server = await answering()
    url = url_of(server)
    server.close()
    await server.wait_closed()
    with pytest.raises(DialFailed, match="no connection"):
        await dial(url, 5)


async def test_a_name_that_nobody_has() -> None:
    with pytest.raises(DialFailed, match="no connection"):
        await dial("ws://relay.invalid/ws", 5)


async def test_a_path_that_is_not_the_relays(relay: RelayProcess) -> None:
    with pytest.raises(DialFailed, match="HTTP 404"):
        await dial(relay.url + "x", 5)


async def test_a_close_has_its_code(relay: RelayProcess) -> None:
    socket = await dial(relay.url, 5)
    await socket.send('{"type":"Ping"}')
    assert await socket.receive() == '{"type":"Pong"}'
    await socket.send("x" * 200_000)
    with pytest.raises(SocketClosed) as closed:
        await socket.receive()
    assert closed.value.code == 1009
    await socket.close()


async def test_a_connection_that_is_dropped(relay: RelayProcess) -> None:
    socket = await dial(relay.url, 5)
    socket.abort()
    with pytest.raises(SocketClosed) as closed:
        await socket.receive()
    assert closed.value.code == 1006
    await socket.close()
