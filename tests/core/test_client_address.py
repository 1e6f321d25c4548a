"""Which address a request is logged and counted under."""

import logging

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.core.logging import client_address
from app.main import create_app
from tests.conftest import MakeSettings


def addresses_seen_by(app: FastAPI) -> list[str | None]:
    """The addresses that a new route GET /peer sees."""
    seen: list[str | None] = []

    @app.get("/peer")
    async def note(request: Request) -> None:
        seen.append(request.client.host if request.client else None)

    return seen


@pytest.mark.parametrize(
    "claimed",
    ["198.51.100.7", "198.51.100.7:50000", "127.0.0.1", "203.0.113.5, 198.51.100.7"],
)
def test_x9_a_client_is_logged_under_its_own_address(
    app: FastAPI, caplog: pytest.LogCaptureFixture, claimed: str
) -> None:
    caplog.set_level(logging.INFO)
    logged: list[str | None] = []

    def note(_: logging.LogRecord) -> bool:
        logged.append(client_address.get())
        return True

    caplog.handler.addFilter(note)
    with TestClient(app, client=("203.0.113.5", 50000)) as client:
        client.get("/health/live", headers={"X-Forwarded-For": claimed})

    assert set(logged) - {None} == {"203.0.113.5"}


def test_x9_a_proxy_is_not_believed_unless_it_is_listed(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(trusted_proxies="10.0.0.0/8"))
    seen = addresses_seen_by(app)

    with TestClient(app, client=("203.0.113.5", 50000)) as client:
        client.get("/peer", headers={"X-Forwarded-For": "198.51.100.7"})

    assert seen == ["203.0.113.5"]


@pytest.mark.parametrize("proxy", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_x9_a_trusted_proxy_is_believed_over_ipv4_and_on_a_dual_stack_socket(
    make_settings: MakeSettings, proxy: str
) -> None:
    """A dual-stack socket writes IPv4 addresses as IPv6 ones (RFC 4291, section 2.5.5.2)."""
    app = create_app(make_settings(trusted_proxies="127.0.0.1"))
    seen = addresses_seen_by(app)

    with TestClient(app, client=(proxy, 50000)) as client:
        client.get("/peer", headers={"X-Forwarded-For": "203.0.113.5"})

    assert seen == ["203.0.113.5"]


@pytest.mark.parametrize(
    ("forwarded", "client_is"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::FFFF:c000:201]:443", "192.0.2.1"),
        ("203.0.113.5, ::ffff:10.0.0.9", "203.0.113.5"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("unknown", "unknown"),
    ],
)
def test_x9_an_address_that_a_proxy_wrote_has_one_spelling(
    make_settings: MakeSettings, forwarded: str, client_is: str
) -> None:
    app = create_app(make_settings(trusted_proxies="127.0.0.1,10.0.0.0/8"))
    seen = addresses_seen_by(app)

    with TestClient(app, client=("127.0.0.1", 50000)) as client:
        client.get("/peer", headers={"X-Forwarded-For": forwarded})

    assert seen == [client_is]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded"])
def test_x9_a_proxy_that_is_not_listed_is_named_once_in_the_log(
    app: FastAPI, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with TestClient(app, client=("192.0.2.9", 50000)) as client:
        client.get("/health/live")
        assert "TRUSTED_PROXIES" not in caplog.text
        for _ in range(3):
            client.get("/health/live", headers={name: "198.51.100.7"})

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (warning,) = [line for line in warnings if "TRUSTED_PROXIES" in line]
    assert f"Ignored {name} from 192.0.2.9" in warning
    assert "198.51.100.7" not in warning


def test_x9_a_listed_proxy_is_not_warned_of(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings(trusted_proxies="127.0.0.1"))

    with TestClient(app, client=("127.0.0.1", 50000)) as client:
        client.get("/health/live", headers={"X-Forwarded-For": "198.51.100.7"})

    assert "TRUSTED_PROXIES" not in caplog.text


@pytest.mark.parametrize(
    ("peer", "given", "is_kept"),
    [
        ("127.0.0.1", "a.B_c-1", True),
        ("::ffff:127.0.0.1", "a", True),
        ("127.0.0.1", "x" * 128, True),
        ("127.0.0.1", "x" * 129, False),
        ("127.0.0.1", "a b", False),
        ("127.0.0.1", "a\n", False),
        ("127.0.0.1", "", False),
        ("203.0.113.5", "a", False),
    ],
)
def test_only_a_trusted_proxy_can_name_a_request(
    make_settings: MakeSettings, peer: str, given: str, is_kept: bool
) -> None:
    app = create_app(make_settings(trusted_proxies="127.0.0.1"))

    with TestClient(app, client=(peer, 50000)) as client:
        response = client.get("/nowhere", headers={b"X-Request-ID": given.encode()})

    assert (response.headers["x-request-id"] == given) == is_kept
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_x9_an_ipv4_client_of_a_dual_stack_socket_keeps_its_ipv4_address(app: FastAPI) -> None:
    seen = addresses_seen_by(app)

    with TestClient(app, client=("::ffff:203.0.113.5", 50000)) as client:
        client.get("/peer")

    assert seen == ["203.0.113.5"]


@pytest.mark.parametrize(("trusted", "seen"), [("unix", "198.51.100.7"), ("10.0.0.0/8", "unix")])
def test_x9_a_proxy_at_a_unix_socket_is_believed_only_as_unix(
    make_settings: MakeSettings, trusted: str, seen: str
) -> None:
    app = create_app(make_settings(trusted_proxies=trusted))
    addresses = addresses_seen_by(app)

    async def over_a_socket(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "client": None, "server": ("/run/app.sock", None)}
        await app(scope, receive, send)

    with TestClient(over_a_socket) as client:
        client.get("/peer", headers={"X-Forwarded-For": "198.51.100.7"})

    assert addresses == [seen]
