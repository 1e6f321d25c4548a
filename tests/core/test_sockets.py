"""WebSockets have a log line, an id and error responses, as requests do."""

import asyncio
import logging
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import text
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from app.api.deps import SessionDep
from app.core.logging import request_id
from app.errors import NotFound, Unauthenticated
from tests.core.routes import SECRET


async def reject() -> None:
    raise Unauthenticated


@pytest.fixture
def sockets(app: FastAPI, client: TestClient) -> TestClient:
    @app.websocket("/open")
    async def stay_open(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json(request_id.get())
        await socket.receive_text()

    @app.websocket("/denied")
    async def deny(socket: WebSocket, user: Annotated[None, Depends(reject)]) -> None: ...

    @app.websocket("/closed")
    async def close(socket: WebSocket) -> None:
        await socket.close()

    @app.websocket("/broken")
    async def break_early(socket: WebSocket) -> None:
        raise RuntimeError(SECRET)

    @app.websocket("/later/{how}")
    async def fail_later(socket: WebSocket, how: str, session: SessionDep) -> None:
        await socket.accept()
        if how == "missing":
            raise NotFound
        if how == "mistake":
            await session.execute(text("SELECT * FROM no_such_table"))
        raise RuntimeError(SECRET)

    return client


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    found = [record for record in caplog.records if "status" in vars(record)]
    return [(record.getMessage(), vars(record)["status"]) for record in found]


def test_a_socket_has_an_id_and_a_log_line(
    sockets: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    with sockets.websocket_connect("/open") as socket:
        given = socket.receive_json()
        headers: dict[bytes, bytes] = dict(socket.extra_headers or ())
        assert headers[b"x-request-id"].decode() == given

    assert lines(caplog) == [("WEBSOCKET /open", 101)]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(("path", "status"), [("/denied", 401), ("/broken", 500)])
def test_x5_a_socket_is_rejected_with_a_problem(
    sockets: TestClient, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    caplog.set_level(logging.INFO)

    with pytest.raises(WebSocketDenialResponse) as denial, sockets.websocket_connect(path):
        pass

    response = denial.value
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert SECRET not in response.text
    assert lines(caplog) == [(f"WEBSOCKET {path}", status)]


@pytest.mark.parametrize("path", ["/closed", "/nowhere"])
def test_a_socket_that_is_closed_before_it_opens_is_a_403(
    sockets: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.INFO)

    with pytest.raises(WebSocketDisconnect), sockets.websocket_connect(path):
        pass

    assert lines(caplog) == [(f"WEBSOCKET {path}", 403)]


@pytest.mark.parametrize(("how", "code"), [("missing", 1008), ("mistake", 1011), ("bug", 1011)])
def test_an_error_in_an_open_socket_closes_it_with_a_code(
    sockets: TestClient, caplog: pytest.LogCaptureFixture, how: str, code: int
) -> None:
    caplog.set_level(logging.INFO)

    with (
        sockets.websocket_connect(f"/later/{how}") as socket,
        pytest.raises(WebSocketDisconnect) as closed,
    ):
        socket.receive_text()

    assert closed.value.code == code
    assert SECRET not in (closed.value.reason or "")
    assert lines(caplog) == [(f"WEBSOCKET /later/{how}", 101)]
    assert ("Unhandled error" in caplog.text) == (code == 1011)


@pytest.mark.parametrize("path", ["/open", "/denied"])
def test_a_client_that_leaves_before_its_socket_opens_is_no_error(
    app: FastAPI, sockets: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        # As uvicorn does then.
        raise OSError

    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"testserver")],
        "extensions": {"websocket.http.response": {}},
    }
    asyncio.run(app(scope, receive, send))

    assert "Unhandled error" not in caplog.text


def test_t11_the_query_of_a_socket_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The server writes its own line, in these words."""
    caplog.set_level(logging.INFO)
    server = logging.getLogger("uvicorn.error")

    server.info('%s - "WebSocket %s" [accepted]', "192.0.2.1:1", f"/socket?token={SECRET}")
    server.info("Started")

    assert [record.getMessage() for record in caplog.records] == ["Started"]
