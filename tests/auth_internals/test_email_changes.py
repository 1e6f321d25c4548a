"""A new email address: confirmed at the new one, with a way back from the old one."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from app.auth import throttle
from app.auth.models import Purpose
from tests.auth_internals.helpers import (
    CHANGE_PASSWORD,
    LOGIN,
    ME,
    NEW_PASSWORD,
    PASSWORD,
    SESSIONS,
    USERS,
    LogIn,
    MakeUser,
    execute,
    mails,
    move_clock,
    token_in,
)
from tests.conftest import MakeSettings

CHANGE = "/api/v1/auth/email/change"
CONFIRM = "/api/v1/auth/email/confirm"
FORGOT = "/api/v1/auth/password/forgot"
RESET = "/api/v1/auth/password/reset"
PAGE = "/account/confirm-email"
OLD, NEW = "ada@example.com", "new@example.com"

Headers = dict[str, str]


@pytest.fixture
def ada(make_user: MakeUser, log_in: LogIn) -> Headers:
    make_user("ada")
    return log_in("ada")


def email_of(rows: Engine, username: str = "ada") -> object:
    query = "SELECT email FROM users WHERE username = :username"
    ((email,),) = execute(rows, query, username=username)
    return email


def ask(client: TestClient, header: Headers, rows: Engine, email: str = NEW) -> str:
    """The token of the link to a new address."""
    assert client.post(CHANGE, json={"email": email}, headers=header).status_code == 204
    return token_in(mails(rows)[-1])


def verify(client: TestClient, token: str) -> int:
    return client.post(CONFIRM, json={"token": token}).status_code


def change(client: TestClient, header: Headers, rows: Engine, email: str = NEW) -> str:
    """Change the address; the token of the way back."""
    assert verify(client, ask(client, header, rows, email)) == 204
    return token_in(mails(rows)[-1])


def can_log_in(client: TestClient, username: str, password: str) -> bool:
    form = {"username": username, "password": password}
    return client.post(LOGIN, data=form).status_code == 200


def test_a_new_address_counts_only_when_it_is_confirmed(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    token = ask(client, ada, rows)
    assert (mails(rows)[-1].to, email_of(rows)) == (NEW, OLD)
    assert not can_log_in(client, NEW, PASSWORD)

    assert [verify(client, token) for _ in range(2)] == [204, 400]

    assert email_of(rows) == NEW
    assert client.get(ME, headers=ada).json()["email"] == NEW
    assert can_log_in(client, NEW, PASSWORD)
    assert not can_log_in(client, OLD, PASSWORD)
    told = mails(rows)[-1]
    assert (told.to, told.template) == (OLD, "restore_previous_email")
    assert NEW in told.text


def test_the_way_back_locks_a_thief_out(
    client: TestClient, ada: Headers, log_in: LogIn, rows: Engine
) -> None:
    back = change(client, ada, rows)
    client.post(FORGOT, json={"email": NEW})
    reset = {"token": token_in(mails(rows)[-1]), "new_password": NEW_PASSWORD}
    assert client.post(RESET, json=reset).status_code == 204
    thief = log_in("ada", NEW_PASSWORD)

    assert verify(client, back) == 204

    assert email_of(rows) == OLD
    assert client.get(ME, headers=thief).status_code == 401
    assert [can_log_in(client, "ada", p) for p in (PASSWORD, NEW_PASSWORD)] == [False, False]
    mail = mails(rows)[-1]
    assert (mail.to, mail.template) == (OLD, "password_reset")
    own = {"token": token_in(mail), "new_password": "ten green birds in the old tree"}
    assert client.post(RESET, json=own).status_code == 204
    assert can_log_in(client, OLD, own["new_password"])


def test_a_thief_cannot_close_the_way_back_by_changing_the_address_again(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    back = change(client, ada, rows, "thief@example.com")
    second = change(client, ada, rows, "another@example.com")
    third = change(client, ada, rows, "third@example.com")

    assert verify(client, third) == 204
    assert email_of(rows) == "another@example.com"
    assert verify(client, back) == 204
    assert email_of(rows) == OLD
    # The thief's own ways back have ended with it.
    assert verify(client, second) == 400
    assert email_of(rows) == OLD


@pytest.mark.parametrize(("seconds", "status"), [(-6 * 86400, 204), (-7 * 86400, 400)])
def test_the_way_back_is_open_for_seven_days(
    client: TestClient, ada: Headers, rows: Engine, seconds: int, status: int
) -> None:
    back = change(client, ada, rows)
    move_clock(rows, "one_time_tokens", "expires_at", seconds)

    assert verify(client, back) == status


@pytest.mark.parametrize("end", ["time", "newer", "deactivated", "deleted", "logged out"])
def test_t9_a_link_to_a_new_address_ends(
    client: TestClient, ada: Headers, rows: Engine, end: str
) -> None:
    token = ask(client, ada, rows)
    statements = {
        "time": "",
        "newer": "",
        "deactivated": "UPDATE users SET is_active = false",
        "deleted": "DELETE FROM users",
        "logged out": "DELETE FROM sessions",
    }
    if end == "time":
        move_clock(rows, "one_time_tokens", "expires_at", -60 * 60)
    elif end == "newer":
        ask(client, ada, rows, "newer@example.com")
    else:
        execute(rows, statements[end])

    # The new address may be confirmed on another device.
    assert verify(client, token) == (204 if end == "logged out" else 400)


@pytest.mark.parametrize(
    "end", ["password", "forgotten password", "administrator", "everywhere", "one", "reactivated"]
)
def test_t9_a_thief_who_is_locked_out_can_no_longer_confirm_an_address(
    client: TestClient, ada: Headers, admin: Headers, log_in: LogIn, rows: Engine, end: str
) -> None:
    thief = ask(client, ada, rows, "thief@example.com")
    ((user_id,),) = execute(rows, "SELECT id FROM users WHERE username = 'ada'")
    path = f"{USERS}/{user_id}"
    if end == "password":
        change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert client.post(CHANGE_PASSWORD, json=change, headers=ada).status_code == 200
    elif end == "forgotten password":
        client.post(FORGOT, json={"email": OLD})
        reset = {"token": token_in(mails(rows)[-1]), "new_password": NEW_PASSWORD}
        assert client.post(RESET, json=reset).status_code == 204
    elif end == "administrator":
        change = {"password": NEW_PASSWORD}
        assert client.patch(path, json=change, headers=admin).status_code == 200
    elif end == "everywhere":
        assert client.delete(SESSIONS, headers=log_in("ada")).status_code == 204
    elif end == "one":
        own = log_in("ada")
        ((session_id,),) = execute(
            rows, "SELECT min(id) FROM sessions WHERE user_id = :id", id=user_id
        )
        assert client.delete(f"{SESSIONS}/{session_id}", headers=own).status_code == 204
    else:
        for is_active in (False, True):
            client.patch(path, json={"is_active": is_active}, headers=admin)

    assert verify(client, thief) == 400
    assert email_of(rows) == OLD


def test_t9_a_change_by_an_administrator_ends_all_links_to_other_addresses(
    client: TestClient, ada: Headers, admin: Headers, rows: Engine
) -> None:
    """A thief who changed the address twice has a way back to the first of them."""
    ways_back = [
        change(client, ada, rows, "thief@example.com"),
        change(client, ada, rows, "another@example.com"),
    ]
    pending = ask(client, ada, rows, "third@example.com")
    ((user_id,),) = execute(rows, "SELECT id FROM users WHERE username = 'ada'")

    path = f"{USERS}/{user_id}"
    assert client.patch(path, json={"email": OLD}, headers=admin).status_code == 200

    assert [verify(client, token) for token in (*ways_back, pending)] == [400] * 3
    assert email_of(rows) == OLD


def test_an_administrator_who_waits_for_a_change_of_the_own_address_cannot_undo_it(
    client: TestClient, admin: Headers, rows: Engine
) -> None:
    """The address that the request names was the own one when the request was authenticated."""
    me = client.get(ME, headers=admin).json()
    path, body = f"{USERS}/{me['id']}", {"email": me["email"]}
    with ThreadPoolExecutor(1) as other:
        with rows.begin() as change:
            change.execute(text("UPDATE users SET email = :new"), {"new": NEW})
            response = other.submit(client.patch, path, json=body, headers=admin)
            time.sleep(0.5)

        assert response.result().status_code == 403
    assert email_of(rows, "admin") == NEW


def test_another_user_cannot_end_a_way_back_or_a_pending_change(
    client: TestClient, ada: Headers, visitor: Headers, rows: Engine
) -> None:
    """While registration is closed, an address that became free can be taken without a link."""
    earlier = change(client, visitor, rows, "earlier@example.com")
    back = change(client, ada, rows)
    pending = ask(client, ada, rows, "third@example.com")
    ask(client, visitor, rows, "third@example.com")
    client.patch(ME, json={"email": OLD}, headers=visitor)
    change(client, visitor, rows, "fourth@example.com")
    assert verify(client, earlier) == 204

    assert verify(client, pending) == 204
    assert verify(client, back) == 204
    assert email_of(rows) == OLD


def test_t9_a_link_for_an_address_resets_no_password_and_the_other_way_around(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    token = ask(client, ada, rows)
    assert (
        client.post(RESET, json={"token": token, "new_password": NEW_PASSWORD}).status_code == 400
    )

    client.post(FORGOT, json={"email": OLD})
    assert verify(client, token_in(mails(rows)[-1])) == 400


def test_t9_a_link_for_a_password_ends_with_the_address(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    client.post(FORGOT, json={"email": OLD})
    reset = {"token": token_in(mails(rows)[-1]), "new_password": NEW_PASSWORD}
    change(client, ada, rows)

    assert client.post(RESET, json=reset).status_code == 400


def test_t9_of_several_uses_at_once_one_succeeds(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    token = ask(client, ada, rows)

    with ThreadPoolExecutor(10) as people:
        statuses = Counter(people.map(lambda _: verify(client, token), range(20)))

    assert statuses == {204: 1, 400: 19}
    assert Counter(mail.template for mail in mails(rows))["restore_previous_email"] == 1


def test_t9_of_two_users_who_confirm_one_address_at_once_one_gets_it(
    client: TestClient, ada: Headers, visitor: Headers, rows: Engine
) -> None:
    tokens = [ask(client, header, rows) for header in (ada, visitor)]

    with ThreadPoolExecutor(2) as both:
        statuses = sorted(both.map(lambda token: verify(client, token), tokens))

    assert statuses == [204, 409]


def test_t9_a_thief_cannot_overtake_the_way_back(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    back = change(client, ada, rows, "thief@example.com")
    later = change(client, ada, rows, "other@example.com")
    pending = ask(client, ada, rows, "third@example.com")

    with ThreadPoolExecutor(3) as all_at_once:
        used = all_at_once.map(lambda token: verify(client, token), (later, pending, back))
        *_, status = used

    # On PostgreSQL, the thief's link can be locked first. Then the way back is still valid.
    assert status == 204 or verify(client, back) == 204
    assert email_of(rows) == OLD
    assert not can_log_in(client, "ada", PASSWORD)
    query = "SELECT purpose, email FROM one_time_tokens"
    assert execute(rows, query) == [(Purpose.RESET_PASSWORD, OLD)]


def test_an_address_that_another_user_got_first_is_a_conflict(
    client: TestClient, ada: Headers, make_user: MakeUser, rows: Engine
) -> None:
    token = ask(client, ada, rows)
    make_user("new")

    assert verify(client, token) == 409
    assert email_of(rows) == OLD


def test_t13_a_stolen_token_needs_a_recent_login_to_change_the_address(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    move_clock(rows, "sessions", "created_at", -61 * 60)

    assert client.post(CHANGE, json={"email": NEW}, headers=ada).status_code == 401
    assert mails(rows) == []


def test_t4_a_request_for_a_link_that_a_logout_overtakes_sends_none(
    client: TestClient, ada: Headers, rows: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = throttle.record

    async def record_and_log_out(*args: Any) -> None:
        await record(*args)
        execute(rows, "DELETE FROM sessions")

    monkeypatch.setattr(throttle, "record", record_and_log_out)

    assert client.post(CHANGE, json={"email": NEW}, headers=ada).status_code == 401
    assert mails(rows) == []


def test_t15_a_user_cannot_flood_addresses(client: TestClient, ada: Headers, rows: Engine) -> None:
    statuses = [
        client.post(CHANGE, json={"email": f"u{n}@example.com"}, headers=ada).status_code
        for n in range(6)
    ]

    assert statuses == [204] * 5 + [429]


@pytest.mark.parametrize("registration", ["invite", "open"])
def test_where_addresses_are_verified_only_a_link_changes_them(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    ada: Headers,
    rows: Engine,
    registration: str,
) -> None:
    app.state.settings = make_settings(registration=registration)

    response = client.patch(ME, json={"email": NEW, "username": "eva"}, headers=ada)

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["body", "email"]
    assert client.patch(ME, json={"username": "eva"}, headers=ada).status_code == 200
    assert email_of(rows, "eva") == OLD


@pytest.mark.parametrize("registration", ["closed", "invite"])
def test_an_administrator_does_not_change_the_own_address_as_that_of_another_user(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    admin: Headers,
    rows: Engine,
    registration: str,
) -> None:
    """Otherwise a stolen session would need no link, and the previous address would not be told."""
    app.state.settings = make_settings(registration=registration)
    path = f"{USERS}/{client.get(ME, headers=admin).json()['id']}"

    assert client.patch(path, json={"email": NEW}, headers=admin).status_code == 403
    assert email_of(rows, "admin") == "admin@example.com"
    # A form may send what it has shown.
    unchanged = {"username": "boss", "email": "admin@example.com"}
    assert client.patch(path, json=unchanged, headers=admin).status_code == 200


def test_the_previous_address_is_told_of_a_change_without_a_link(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    assert client.patch(ME, json={"username": "eva"}, headers=ada).status_code == 200
    assert mails(rows) == []

    assert client.patch(ME, json={"email": NEW}, headers=ada).status_code == 200

    (told,) = mails(rows)
    assert (told.to, told.template) == (OLD, "notify_previous_email")
    assert NEW in told.text
    # It may be a stranger's, because it was never confirmed.
    assert execute(rows, "SELECT id FROM one_time_tokens") == []


def test_without_a_mail_server_an_address_can_be_changed(
    app: FastAPI, client: TestClient, make_settings: MakeSettings, ada: Headers, rows: Engine
) -> None:
    app.state.settings = make_settings(environment=None)

    assert client.patch(ME, json={"email": NEW}, headers=ada).status_code == 200
    assert (email_of(rows), mails(rows)) == (NEW, [])


def test_t14_opening_the_page_confirms_nothing(
    client: TestClient, ada: Headers, rows: Engine
) -> None:
    token = ask(client, ada, rows)
    for method in ("GET", "HEAD"):
        assert client.request(method, PAGE, params={"token": token}).status_code == 200
    assert email_of(rows) == OLD

    assert "is confirmed" in client.post(PAGE, data={"token": token}).text
    assert email_of(rows) == NEW
    assert client.post(PAGE, data={"token": token}).status_code == 400
