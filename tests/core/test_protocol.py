"""A server whose client sends what is not HTTP, and does not read the answers."""

import asyncio
import socket
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from app.core.server import Protocol

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Unread(asyncio.Transport):
    """A connection that stays closing, since the client has not read all yet."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})
        self.sent = b""
        self.has_closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.has_closed = True

    def is_closing(self) -> bool:
        return self.has_closed


def test_an_app_that_answers_after_a_400_sends_nothing_and_does_not_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def scenario(connection: socket.socket) -> bytes:
        state, transport = ServerState(), Unread(connection)
        protocol = Protocol(Config(app, log_config=None), state, {})
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(POST)
        protocol.data_received(b"zz\r\n")
        await asyncio.gather(*state.tasks)
        return transport.sent

    with socket.socket() as connection:
        # On Windows, one that is not bound has no address.
        connection.bind(("127.0.0.1", 0))
        sent = asyncio.run(scenario(connection))

    assert sent.startswith(b"HTTP/1.1 400 ")
    assert sent.count(b"HTTP/1.1") == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
