"""Which address a request is logged and counted under."""

import logging

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

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


def test_x9_an_ipv4_client_of_a_dual_stack_socket_keeps_its_ipv4_address(app: FastAPI) -> None:
    seen = addresses_seen_by(app)

    with TestClient(app, client=("::ffff:203.0.113.5", 50000)) as client:
        client.get("/peer")

    assert seen == ["203.0.113.5"]
