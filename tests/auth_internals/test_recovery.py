"""Forgotten passwords: the link by email, and what strangers can do with the form."""

import itertools
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import ValidationError
from sqlalchemy import Engine

from app.auth.models import Purpose
from app.main import create_app
from tests.auth_internals.helpers import (
    CHANGE_PASSWORD,
    EASY,
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    USERS,
    WRONG,
    LogIn,
    MakeUser,
    Statements,
    add_links,
    execute,
    fill,
    mails,
    move_clock,
    operations,
    token_in,
)
from tests.conftest import MakeSettings

FORGOT = "/api/v1/auth/password/forgot"
RESET = "/api/v1/auth/password/reset"
PAGE = "/account/reset-password"
FORGOT_PAGE = "/account/forgot-password"
EMAIL = "ada@example.com"


def forget(client: TestClient, email: str = EMAIL) -> Response:
    return client.post(FORGOT, json={"email": email})


def reset(client: TestClient, token: str, password: str = NEW_PASSWORD) -> Response:
    return client.post(RESET, json={"token": token, "new_password": password})


def can_log_in(client: TestClient, password: str, username: str = "ada") -> bool:
    form = {"username": username, "password": password}
    return client.post(LOGIN, data=form).status_code == 200


@pytest.fixture
def link(client: TestClient, make_user: MakeUser, rows: Engine) -> str:
    """The token of a link for ada."""
    make_user("ada")
    assert forget(client).status_code == 204
    return token_in(mails(rows)[-1])


def test_t9_a_link_sets_a_password_ends_every_session_and_tells_the_user(
    client: TestClient, make_user: MakeUser, log_in: LogIn, rows: Engine
) -> None:
    make_user("ada")
    sessions = [log_in("ada") for _ in range(3)]

    assert forget(client).status_code == 204
    (mail,) = mails(rows)
    assert (mail.to, mail.template) == (EMAIL, "password_reset")
    assert reset(client, token_in(mail)).status_code == 204

    assert [client.get(ME, headers=header).status_code for header in sessions] == [401] * 3
    assert [can_log_in(client, password) for password in (PASSWORD, NEW_PASSWORD)] == [False, True]
    assert [(mail.to, mail.template) for mail in mails(rows)[1:]] == [(EMAIL, "password_changed")]


def test_t9_a_link_works_once(client: TestClient, link: str) -> None:
    assert [reset(client, link).status_code for _ in range(2)] == [204, 400]


def test_t9_of_fifty_uses_at_once_one_succeeds(client: TestClient, link: str, rows: Engine) -> None:
    def use(number: int) -> int:
        return reset(client, link, f"{NEW_PASSWORD} {number}").status_code

    with ThreadPoolExecutor(10) as users:
        statuses = Counter(users.map(use, range(50)))

    assert statuses[204] == 1
    assert {*statuses} <= {204, 400, 429}
    assert Counter(mail.template for mail in mails(rows))["password_changed"] == 1


def test_t9_of_links_requested_at_once_one_is_valid(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")

    with ThreadPoolExecutor(4) as users:
        statuses = [*users.map(lambda _: forget(client).status_code, range(4))]

    assert statuses == [204] * 4
    tokens = [token_in(mail) for mail in mails(rows)]
    # The last one wins, whichever that was. A weak password does not use a link up.
    valid = [token for token in tokens if reset(client, token, EASY).status_code == 422]
    assert len(tokens) == 4
    assert len(valid) == 1


def test_t9_two_links_used_at_once_leave_one_password(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    """One is used while another one is requested: either may win, but never both."""
    make_user("ada")
    for number in range(10):
        execute(rows, "DELETE FROM throttles")
        forget(client)
        old = token_in(mails(rows)[-1])
        password = f"{NEW_PASSWORD} {number}"
        with ThreadPoolExecutor(2) as users:
            used = users.submit(reset, client, old, password)
            users.submit(forget, client).result()
        new = token_in([m for m in mails(rows) if m.template == "password_reset"][-1])
        assert can_log_in(client, password) == (used.result().status_code == 204)
        assert reset(client, old).status_code == 400
        # The login has ended the new one.
        assert reset(client, new, f"{password}!").status_code in (
            {400} if used.result().status_code == 204 else {204}
        )


@pytest.mark.parametrize(
    "end", ["time", "new link", "login", "password", "administrator", "email", "inactive", "gone"]
)
def test_t9_a_link_ends(
    client: TestClient,
    link: str,
    log_in: LogIn,
    admin: dict[str, str],
    rows: Engine,
    end: str,
) -> None:
    ((user_id,),) = execute(rows, "SELECT id FROM users WHERE username = 'ada'")
    change = {"current_password": PASSWORD, "new_password": f"{NEW_PASSWORD}, or ten"}
    path = f"{USERS}/{user_id}"
    ends: dict[str, Callable[[], Any]] = {
        "time": lambda: move_clock(rows, "one_time_tokens", "expires_at", -30 * 60),
        "new link": lambda: forget(client),
        "login": lambda: log_in("ada"),
        "password": lambda: client.post(CHANGE_PASSWORD, json=change, headers=log_in("ada")),
        "administrator": lambda: client.patch(path, json={"password": WRONG}, headers=admin),
        "email": lambda: client.patch(path, json={"email": "new@example.com"}, headers=admin),
        "inactive": lambda: client.patch(path, json={"is_active": False}, headers=admin),
        "gone": lambda: client.delete(path, headers=admin),
    }

    result = ends[end]()

    assert getattr(result, "status_code", 200) < 400
    assert reset(client, link).status_code == 400
    assert not can_log_in(client, NEW_PASSWORD)


def test_t9_a_link_lasts_half_an_hour(client: TestClient, link: str, rows: Engine) -> None:
    move_clock(rows, "one_time_tokens", "expires_at", -29 * 60)

    assert reset(client, link).status_code == 204


def test_t9_a_link_from_a_clock_that_ran_ahead_is_invalid(
    client: TestClient, link: str, rows: Engine
) -> None:
    move_clock(rows, "one_time_tokens", "expires_at", 24 * 60 * 60)

    assert reset(client, link).status_code == 400


def test_t9_only_a_hash_of_the_token_is_stored_and_a_session_token_is_no_link(
    client: TestClient, link: str, rows: Engine, visitor: dict[str, str]
) -> None:
    ((stored,),) = execute(rows, "SELECT token_hash FROM one_time_tokens")

    assert len(link) == 43
    assert link not in str(stored)
    assert reset(client, str(stored)).status_code == 400
    assert reset(client, visitor["Authorization"].removeprefix("Bearer ")).status_code == 400
    for token in (link, str(stored)):
        assert client.get(ME, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_t9_a_weak_password_leaves_the_link_valid_and_is_limited(
    client: TestClient, link: str
) -> None:
    statuses = [reset(client, link, EASY).status_code for _ in range(6)]

    assert statuses == [422] * 5 + [429]


def test_t9_an_invalid_link_hashes_nothing_and_writes_nothing(
    client: TestClient, statements: Counter[str], verified: Counter[str]
) -> None:
    statements.clear()

    assert reset(client, "x" * 43).status_code == 400

    assert {*statements} <= {"SELECT", "BEGIN", "ROLLBACK"}
    assert verified.total() == 0


@pytest.mark.parametrize("username", ["nobody", "inactive"])
def test_t10_an_unknown_address_gets_the_same_response_from_the_same_statements(
    client: TestClient, make_user: MakeUser, rows: Engine, sent: Statements, username: str
) -> None:
    make_user("ada")
    make_user("inactive", is_active=False)

    responses, statements = [], []
    for email in (EMAIL, f"{username}@example.com"):
        sent.clear()
        responses.append(forget(client, email))
        # Whether the savepoint is kept is the only difference.
        statements.append([text for text, _ in sent if "SAVEPOINT" not in text])

    assert [response.status_code for response in responses] == [204, 204]
    assert {response.content for response in responses} == {b""}
    headers = [{**response.headers, "x-request-id": ""} for response in responses]
    assert headers[0] == headers[1]
    assert statements[0] == statements[1]
    assert [mail.to for mail in mails(rows)] == [EMAIL]


@pytest.mark.usefixtures("real_hashing")
def test_t10_an_unknown_address_takes_as_long(client: TestClient, make_user: MakeUser) -> None:
    make_user("ada")
    seconds = []
    for email in (EMAIL, "nobody@example.com"):
        started = time.monotonic()
        forget(client, email)
        seconds.append(time.monotonic() - started)

    assert min(seconds) >= 0.5


def test_t10_an_unknown_address_leaves_no_trace_of_itself(client: TestClient, rows: Engine) -> None:
    forget(client, "stranger@example.com")

    # The trail is kept for a year: requests without an account must not fill it.
    for table in ("one_time_tokens", "outgoing_mails", "audit_events"):
        assert execute(rows, f"SELECT * FROM {table}") == []
    assert "stranger" not in str(execute(rows, "SELECT * FROM throttles"))


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
def test_t15_emails_to_one_address_are_limited_whether_it_is_known_or_not(
    client: TestClient, make_user: MakeUser, rows: Engine, email: str
) -> None:
    make_user("ada")

    # Several spellings count as one.
    spellings = email, f" {email.upper()} ", email, email, email, f"{email.title()}"
    statuses = [forget(client, spelling).status_code for spelling in spellings]

    assert statuses == [204] * 5 + [429]
    assert len(mails(rows)) == (5 if email == EMAIL else 0)


def test_t15_emails_from_one_network_are_limited(client: TestClient) -> None:
    statuses = [forget(client, f"user-{n}@example.com").status_code for n in range(31)]

    assert statuses == [204] * 30 + [429]


@pytest.mark.parametrize("name", ["ada", "ada@example.com"])
def test_a9_a_reset_ends_the_wait_after_failed_logins(
    client: TestClient, link: str, name: str
) -> None:
    def log_in(password: str) -> int:
        return client.post(LOGIN, data={"username": name, "password": password}).status_code

    assert [log_in(WRONG) for _ in range(6)] == [401] * 5 + [429]

    assert reset(client, link).status_code == 204

    assert log_in(NEW_PASSWORD) == 200


def test_a10_a_lockout_does_not_keep_a_user_from_a_new_password(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")
    for _ in range(6):
        can_log_in(client, WRONG)

    assert forget(client).status_code == 204
    assert reset(client, token_in(mails(rows)[-1])).status_code == 204


@pytest.mark.parametrize(
    "email",
    [
        # NFKC and case folding make these ada@example.com: the link goes to that address.
        "ＡDA@example.com",
        "ada@EXAMPLE.com",
        "ada@ｅxample.com",
    ],
)
def test_t9_a_link_goes_to_the_stored_address(
    client: TestClient, make_user: MakeUser, rows: Engine, email: str
) -> None:
    make_user("ada")

    assert forget(client, email).status_code == 204

    assert [mail.to for mail in mails(rows)] == [EMAIL]


@pytest.mark.parametrize(
    "email",
    [
        # A Cyrillic letter.
        "аda@example.com",
        "ada@exаmple.com",
        "ada@example.com.evil.example",
        "ada+x@example.com",
        "ad.a@example.com",
    ],
)
def test_t9_an_address_that_looks_alike_gets_nothing(
    client: TestClient, make_user: MakeUser, rows: Engine, email: str
) -> None:
    make_user("ada")

    assert forget(client, email).status_code in {204, 422}

    assert mails(rows) == []


@pytest.mark.parametrize(
    "email",
    [
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com,eve@example.com",
        "ada@example.com eve@example.com",
        '"ada@example.com"@evil.example',
        "ada@example.com\x00",
        "ada@example.com%0aBcc:eve@example.com",
        ["ada@example.com", "eve@example.com"],
        "ada@[127.0.0.1]",
        f"{'x' * 300}@example.com",
    ],
)
def test_i4_no_second_recipient_can_be_smuggled_in(
    client: TestClient, make_user: MakeUser, rows: Engine, email: object
) -> None:
    make_user("ada")

    status = client.post(FORGOT, json={"email": email}).status_code

    assert status in {204, 422}
    assert mails(rows) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"X-Forwarded-Host": "evil.example"},
        {"Forwarded": "host=evil.example"},
        {"Origin": "https://evil.example", "Referer": "https://evil.example/"},
    ],
)
def test_t14_a_link_never_begins_with_a_host_of_the_request(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    make_user: MakeUser,
    rows: Engine,
    headers: dict[str, str],
) -> None:
    make_user("ada")
    app.state.settings = make_settings(public_url="https://www.example.com/shop/")

    client.post(FORGOT, json={"email": EMAIL}, headers=headers)

    found = [mail.text for mail in mails(rows)]
    assert "evil" not in str(found)
    # A Host that is not allowed is rejected before.
    for text in found:
        assert "https://www.example.com/shop/account/reset-password?token=" in text
    assert len(found) == ("Host" not in headers)


def test_t14_a_link_can_lead_to_a_front_end(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    make_user: MakeUser,
    rows: Engine,
) -> None:
    make_user("ada")
    app.state.settings = make_settings(frontend_url="https://shop.example.com")

    forget(client)

    (mail,) = mails(rows)
    assert "https://shop.example.com/reset-password#token=" in mail.text
    assert reset(client, token_in(mail)).status_code == 204


@pytest.mark.parametrize(
    "url",
    [
        "http://www.example.com",
        "https://www.example.com/?next=x",
        "https://www.example.com/#x",
        "https://user:password@www.example.com",
        "https://www.example.com\\@evil.example",
        "javascript:alert(1)",
        "//evil.example",
        "www.example.com",
        "https://www.example.com/a b",
        "https://www.example.com/\nx",
    ],
)
@pytest.mark.parametrize("name", ["public_url", "frontend_url"])
@pytest.mark.parametrize("environment", ["production", None])
def test_g5_an_unsafe_address_of_links_is_an_invalid_setting(
    make_settings: MakeSettings, environment: str | None, name: str, url: str
) -> None:
    with pytest.raises(ValidationError):
        make_settings(environment=environment, allowed_hosts="example.com", **{name: url})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"public_url": "https://example.com"},
        {"smtp_url": "smtps://example.com", "mail_from": "app@example.com"},
    ],
    ids=["nothing", "no mail server", "no address"],
)
def test_without_a_mail_server_and_an_address_production_queues_nothing(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    log_in: LogIn,
    make_user: MakeUser,
    rows: Engine,
    values: dict[str, str],
) -> None:
    make_user("ada")
    app.state.settings = make_settings(
        environment="production", allowed_hosts="testserver", **values
    )

    assert forget(client).status_code == 404
    assert mails(rows) == []
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert client.post(CHANGE_PASSWORD, json=change, headers=log_in("ada")).status_code == 200
    assert len(mails(rows)) == ("smtp_url" in values)


def test_t11_the_token_is_in_no_log_and_no_error(
    client: TestClient, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "app")
    client.get(PAGE, params={"token": link})
    errors = [
        client.post(PAGE, params={"token": link}, data={"token": link}),
        client.delete(PAGE, params={"token": link}),
        client.post(RESET, json={"token": link, "new_password": EASY}),
        client.post(RESET, json={"token": [link], "new_password": link}),
        client.post(FORGOT, json={"email": link, link: link}),
    ]
    assert reset(client, link).status_code == 204
    assert reset(client, link).status_code == 400

    assert all(error.status_code >= 400 and link not in error.text for error in errors)
    lines = [logging.Formatter().format(record) + str(vars(record)) for record in caplog.records]
    # The test's own client logs its requests, too.
    ours = [line for line in lines if "httpx" not in line]
    assert any("Password reset" in line for line in ours)
    assert not any(link in line for line in ours)


def test_t11_uvicorn_logs_no_query(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where --log-config makes it write its own access log."""
    logger = logging.getLogger("uvicorn.access")
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        path = f"{PAGE}?token=secret"
        logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", path, "1.1", 200)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    said = capsys.readouterr().err
    assert PAGE in said
    assert "secret" not in said


def test_t14_opening_the_page_does_not_use_the_link_up(
    client: TestClient, link: str, statements: Counter[str]
) -> None:
    statements.clear()
    for method in ("GET", "HEAD", "GET"):
        response = client.request(method, PAGE, params={"token": link})
        assert response.status_code == 200
    assert not {*statements} & {"INSERT", "UPDATE", "DELETE"}

    assert client.get(PAGE, params={"token": link}).text.count(link) == 1
    response = client.post(PAGE, data={"token": link, "new_password": NEW_PASSWORD})

    assert response.status_code == 200
    assert "is saved" in response.text
    assert can_log_in(client, NEW_PASSWORD)


def test_t9_the_page_for_a_forgotten_password_sends_a_link_and_says_nothing_about_accounts(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")

    pages = [client.post(FORGOT_PAGE, data={"email": each}) for each in (EMAIL, "bob@example.com")]

    assert [page.status_code for page in pages] == [200, 200]
    assert pages[0].text == pages[1].text
    assert [mail.to for mail in mails(rows)] == [EMAIL]
    assert reset(client, token_in(mails(rows)[-1])).status_code == 204


@pytest.mark.parametrize("token", ["", "expired"])
def test_a_link_that_is_not_valid_leads_to_the_page_that_sends_another_one(
    client: TestClient, token: str
) -> None:
    form = {"token": token, "new_password": NEW_PASSWORD}
    page = client.post(PAGE, data=form) if token else client.get(PAGE)

    assert page.status_code == (400 if token else 200)
    assert ("invalid or has expired" in page.text) == bool(token)
    assert 'action="forgot-password"' in page.text
    assert 'name="new_password"' not in page.text


def test_the_page_for_a_forgotten_password_says_why_it_sends_nothing(
    client: TestClient, make_settings: MakeSettings
) -> None:
    hostile = '"><script>@example'
    rejected = client.post(FORGOT_PAGE, data={"email": hostile})
    for _ in range(30):
        last = client.post(FORGOT_PAGE, data={"email": EMAIL})
    with TestClient(create_app(make_settings(environment="production"))) as production:
        unavailable = production.post(FORGOT_PAGE, data={"email": EMAIL})

    assert rejected.status_code == 422
    assert "Enter an address such as" in rejected.text
    assert escape(hostile) in rejected.text
    assert "<script" not in rejected.text
    assert (last.status_code, "Retry-After" in last.headers) == (429, True)
    assert (unavailable.status_code, "sends no links" in unavailable.text) == (404, True)


@pytest.mark.parametrize("how", ["PATCH", "DELETE"], ids=["deactivated", "deleted"])
@pytest.mark.parametrize("purpose", [p for p in Purpose if p is not Purpose.REGISTER])
def test_t9_no_link_of_a_user_who_is_gone_does_anything(
    client: TestClient,
    admin: dict[str, str],
    make_user: MakeUser,
    rows: Engine,
    purpose: Purpose,
    how: str,
) -> None:
    bob_id = make_user("bob")
    add_links(rows)
    path, body = f"{USERS}/{bob_id}", {"is_active": False} if how == "PATCH" else None
    assert client.request(how, path, json=body, headers=admin).is_success
    page = "/account/confirm-email" if purpose.endswith("email") else PAGE
    form = {"token": purpose} | ({"new_password": NEW_PASSWORD} if page == PAGE else {})

    assert client.options(page, params={"token": purpose}).status_code == 405
    assert client.post(page, data=form).status_code == 400
    assert mails(rows) == []


def test_t14_the_page_has_no_script_and_sends_nothing_elsewhere(client: TestClient) -> None:
    response = client.get(PAGE, params={"token": "x"})

    assert "<script" not in response.text
    assert not re.search(r"https?:|//", response.text)
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "token", ['"><script>alert(1)</script>', "' onfocus=alert(1) '", "\u202e", "${x}", "$service"]
)
def test_i4_the_page_escapes_a_hostile_token(client: TestClient, token: str) -> None:
    shown = client.get(PAGE, params={"token": token})
    weak = client.post(PAGE, data={"token": token, "new_password": "x" * 257})

    assert [shown.status_code, weak.status_code] == [200, 422]
    for response in (shown, weak):
        assert "<script" not in response.text
        assert f'<input type="hidden" name="token" value="{escape(token)}">' in response.text


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"token=x",
        b"token=x&token=y&new_password=z",
        b"token=%00&new_password=%00",
        b"token=%ED%A0%80&new_password=x",
        b"token=" + b"x" * 101 + b"&new_password=x",
        b"token=x&new_password=" + b"x" * 20_000,
        b"token=x&new_password=" + "\ufdfa".encode() * 1000,
        b"token=%0d%0aSet-Cookie:x&new_password=x",
        b"&" * 2000,
        b"\xff=\xff",
    ],
    ids=lambda form: repr(form[:40]),
)
def test_i4_a_malformed_form_of_the_page_is_rejected(
    client: TestClient, link: str, form: bytes
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    response = client.post(PAGE, content=form, headers=headers)

    assert 400 <= response.status_code < 500
    assert "set-cookie" not in response.headers
    assert client.post(PAGE, json={"token": link}).status_code == 415
    assert reset(client, link).status_code == 204


@pytest.mark.parametrize(
    ("password", "status", "reason"),
    [
        (EASY, 422, "too easy to guess"),
        ("short", 422, "Use at least 15 characters"),
        ("x" * 257, 422, "Use 15 to 256 characters"),
        ("\ufdfa" * 256, 422, "too easy to guess"),
    ],
)
def test_a7_the_page_says_why_a_password_is_rejected(
    client: TestClient, link: str, password: str, status: int, reason: str
) -> None:
    response = client.post(PAGE, data={"token": link, "new_password": password})

    assert response.status_code == status
    assert reason in response.text
    assert password not in response.text
    # The person can try again.
    assert reset(client, link).status_code == 204


@pytest.mark.parametrize("name", ["next", "redirect", "url", "return_to", "redirect_uri"])
def test_t14_no_parameter_makes_the_page_redirect(client: TestClient, link: str, name: str) -> None:
    evil = {name: "https://evil.example/"}
    form = {"token": link, "new_password": NEW_PASSWORD, **evil}
    for response in (
        client.get(PAGE, params={"token": link, **evil}, follow_redirects=False),
        client.post(PAGE, params=evil, data=form, follow_redirects=False),
    ):
        assert response.status_code in {200, 422}
        assert "location" not in response.headers
        assert "evil" not in response.text


def test_t4_a_login_during_a_reset_leaves_no_session(
    client: TestClient, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")
    passwords = itertools.cycle([PASSWORD, NEW_PASSWORD])
    old = next(passwords)
    for _ in range(10):
        execute(rows, "DELETE FROM throttles")
        forget(client)
        token = token_in([m for m in mails(rows) if m.template == "password_reset"][-1])
        new = next(passwords)
        with ThreadPoolExecutor(2) as users:
            form = {"username": "ada", "password": old}
            login = users.submit(client.post, LOGIN, data=form)
            used = users.submit(reset, client, token, new).result()
        if used.status_code == 204:
            # A session of the old password would outlive it.
            header = {"Authorization": f"Bearer {login.result().json().get('access_token', '-')}"}
            assert client.get(ME, headers=header).status_code == 401
            old = new
        else:
            # The login was first, and has ended the link.
            assert (used.status_code, login.result().status_code) == (400, 200)
            next(passwords)


def test_every_route_that_takes_a_token_rejects_each_other_kind(
    app: FastAPI, client: TestClient, make_settings: MakeSettings, visitor: dict[str, str]
) -> None:
    """Neither a session token nor a hash nor another text is a link."""
    app.state.settings = make_settings(registration="open")
    schemas = app.openapi()["components"]["schemas"]
    found = set()
    for method, path, operation in operations(app):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        fields = schemas.get(name, {}).get("properties", {})
        if "token" not in fields:
            continue
        found.add(path.removeprefix("/api/v1/auth/"))
        values = {"new_password": NEW_PASSWORD, "password": NEW_PASSWORD, "username": "eve"}
        body = {field: values.get(field, "") for field in fields}
        for token in (visitor["Authorization"][7:], "", "0" * 64, "é", "x" * 100):
            response = client.request(method, fill(path), json={**body, "token": token})
            assert response.status_code == 400, path
            assert response.json()["detail"].startswith("This link is invalid")
    assert found == {"password/reset", "register/complete", "email/confirm"}
