"""Registration without an administrator, and what strangers can do with it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html import escape

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from app.auth.authentication import hash_token
from tests.auth_internals.helpers import (
    EASY,
    ME,
    PASSWORD,
    MakeUser,
    Statements,
    execute,
    header_of,
    mails,
    move_clock,
    token_in,
)
from tests.conftest import MakeSettings

REGISTER = "/api/v1/auth/register"
COMPLETE = "/api/v1/auth/register/complete"
RESET = "/api/v1/auth/password/reset"
PAGE = "/account/register"
EMAIL = "mia@example.com"


@pytest.fixture(autouse=True)
def _open(app: FastAPI, client: TestClient, make_settings: MakeSettings) -> None:
    app.state.settings = make_settings(registration="open")


def ask(client: TestClient, email: str = EMAIL) -> Response:
    return client.post(REGISTER, json={"email": email})


def complete(client: TestClient, token: str, username: str = "mia") -> Response:
    body = {"token": token, "username": username, "password": PASSWORD}
    return client.post(COMPLETE, json=body)


@pytest.fixture
def link(client: TestClient, rows: Engine, _open: None) -> str:
    assert ask(client).status_code == 204
    return token_in(mails(rows)[-1])


def usernames(rows: Engine) -> list[object]:
    return [name for (name,) in execute(rows, "SELECT username FROM users ORDER BY id")]


def test_a_stranger_registers_through_a_link(client: TestClient, rows: Engine) -> None:
    assert ask(client, " MIA@example.com ").status_code == 204
    assert usernames(rows) == []

    (mail,) = mails(rows)
    assert (mail.to, mail.template) == (EMAIL, "registration")
    assert complete(client, token_in(mail)).status_code == 204

    me = client.get(ME, headers=header_of(client, "mia")).json()
    assert (me["username"], me["email"], me["permissions"]) == ("mia", EMAIL, [])
    assert complete(client, token_in(mail), "mia2").status_code == 400
    assert usernames(rows) == ["mia"]


@pytest.mark.parametrize("registration", ["closed", "invite"])
def test_registration_is_closed_unless_it_is_open(
    app: FastAPI,
    client: TestClient,
    make_settings: MakeSettings,
    link: str,
    rows: Engine,
    registration: str,
) -> None:
    app.state.settings = make_settings(registration=registration)

    assert ask(client, "mallory@example.com").status_code == 404
    # A link that was sent before does not work any more either.
    assert complete(client, link).status_code == 404
    form = {"token": link, "username": "mia", "new_password": PASSWORD}
    assert client.post(PAGE, data=form).status_code == 404
    assert usernames(rows) == []
    assert len(mails(rows)) == 1


def test_registration_is_closed_by_default(make_settings: MakeSettings) -> None:
    assert make_settings().registration == "closed"


@pytest.mark.parametrize("is_active", [True, False])
def test_t10_an_address_with_an_account_gets_the_same_response_from_the_same_statements(
    client: TestClient, make_user: MakeUser, rows: Engine, sent: Statements, is_active: bool
) -> None:
    make_user("ada", is_active=is_active)

    responses, statements = [], []
    for email in ("ada@example.com", EMAIL):
        sent.clear()
        responses.append(ask(client, email))
        statements.append([text for text, _ in sent])

    assert [response.status_code for response in responses] == [204, 204]
    assert {response.content for response in responses} == {b""}
    assert statements[0] == statements[1]
    assert [mail.template for mail in mails(rows)] == ["registration_known", "registration"]
    assert "token=" not in mails(rows)[0].text


def test_t9_of_several_uses_at_once_one_succeeds(
    client: TestClient, link: str, rows: Engine
) -> None:
    with ThreadPoolExecutor(10) as people:
        names = [f"mia{n}" for n in range(20)]
        statuses = Counter(people.map(lambda n: complete(client, link, n).status_code, names))

    assert statuses[204] == 1
    assert {*statuses} <= {204, 400, 429}
    assert len(usernames(rows)) == 1


def test_t9_links_end_with_time_and_with_a_newer_one(
    client: TestClient, link: str, rows: Engine
) -> None:
    ask(client)
    newer = token_in(mails(rows)[-1])

    assert complete(client, link).status_code == 400
    move_clock(rows, "one_time_tokens", "expires_at", -60 * 60)
    assert complete(client, newer).status_code == 400
    assert usernames(rows) == []


def test_t9_a_link_ends_the_others_to_its_address(
    client: TestClient, link: str, rows: Engine
) -> None:
    """Two requests at once can leave two links."""
    columns = "purpose, email, expires_at"
    other = f"INSERT INTO one_time_tokens ({columns}, token_hash) SELECT {columns}, :token_hash"
    execute(rows, f"{other} FROM one_time_tokens", token_hash=hash_token("x" * 43))

    assert complete(client, link).status_code == 204
    execute(rows, "DELETE FROM users")
    assert complete(client, "x" * 43).status_code == 400


def test_t9_a_link_is_for_one_purpose_only(client: TestClient, link: str, rows: Engine) -> None:
    body = {"token": link, "new_password": PASSWORD}

    assert client.post(RESET, json=body).status_code == 400
    assert complete(client, link).status_code == 204
    client.post("/api/v1/auth/password/forgot", json={"email": EMAIL})
    assert complete(client, token_in(mails(rows)[-1]), "mia2").status_code == 400


def test_a_user_who_got_the_address_first_keeps_it(
    client: TestClient, link: str, make_user: MakeUser, rows: Engine
) -> None:
    make_user("mia")

    assert complete(client, link, "mia2").status_code == 409
    assert usernames(rows) == ["mia"]


def test_i8_a_taken_username_leaves_the_link_valid_and_guesses_are_limited(
    client: TestClient, link: str, make_user: MakeUser, rows: Engine
) -> None:
    make_user("ada")

    statuses = [complete(client, link, name).status_code for name in ("ada", "ADA", "ａda")]
    assert statuses == [409] * 3
    assert complete(client, link).status_code == 204
    ask(client, "another@example.com")
    other = token_in(mails(rows)[-1])
    assert [complete(client, other, "ada").status_code for _ in range(6)] == [409] * 5 + [429]


@pytest.mark.parametrize("field", ["permissions", "is_active", "id", "email", "user_id"])
def test_z4_no_field_can_be_smuggled_in(
    client: TestClient, link: str, rows: Engine, field: str
) -> None:
    body = {"token": link, "username": "mia", "password": PASSWORD, field: "users:write"}

    assert client.post(COMPLETE, json=body).status_code == 422
    form = {"token": link, "username": "mia", "new_password": PASSWORD, field: "users:write"}
    client.post(PAGE, data=form)
    ((email, is_active),) = execute(rows, "SELECT email, is_active FROM users")
    assert (email, bool(is_active)) == (EMAIL, True)
    assert execute(rows, "SELECT * FROM user_permissions") == []


def test_t15_the_tags_of_a_mailbox_share_its_limit(client: TestClient, rows: Engine) -> None:
    tagged = "mia+tag@example.com", "m.i.a@example.com"
    statuses = [ask(client, email).status_code for email in (*[EMAIL] * 5, *tagged)]

    assert statuses == [204] * 5 + [429] * 2
    assert len(mails(rows)) == 5


def test_a10_strangers_cannot_keep_a_user_from_a_new_password(
    client: TestClient, rows: Engine, make_user: MakeUser
) -> None:
    """What they cause either does not count for the user, or sends the user a link."""
    make_user("mia")
    forgot = "/api/v1/auth/password/forgot"
    for _ in range(6):
        ask(client)
        ask(client, "mia+tag@example.com")
        client.post(forgot, json={"email": "mia+tag@example.com"})
        client.post(forgot, json={"email": "m.ia@example.com"})

    assert client.post(forgot, json={"email": EMAIL}).status_code == 204
    assert mails(rows)[-1].template == "password_reset"


@pytest.mark.parametrize(
    "email",
    [
        f"{EMAIL}\r\nBcc: all@example.com",
        f"{EMAIL},mallory@example.com",
        '"<script>"@example.com',
        "mia@example.com\x00",
        [EMAIL, "mallory@example.com"],
    ],
)
def test_i4_no_second_recipient_can_be_smuggled_in(
    client: TestClient, rows: Engine, email: object
) -> None:
    assert client.post(REGISTER, json={"email": email}).status_code == 422
    assert mails(rows) == []


@pytest.mark.parametrize(
    ("username", "password", "status", "reason"),
    [
        ("mia", EASY, 422, "too easy to guess"),
        ("mia", "short", 422, "Use at least 15 characters"),
        ("<script>alert(1)</script>", PASSWORD, 422, "3 to 32 characters for the username: a-z"),
        (
            '"autofocus onfocus=alert(1) x="',
            PASSWORD,
            422,
            "3 to 32 characters for the username: a-z",
        ),
        ("ada", PASSWORD, 409, "already taken"),
        ("mia", "my name is mia and so on", 422, "Leave out your username"),
    ],
)
def test_i4_the_page_explains_and_escapes(
    client: TestClient,
    link: str,
    make_user: MakeUser,
    rows: Engine,
    username: str,
    password: str,
    status: int,
    reason: str,
) -> None:
    make_user("ada")
    assert client.get(PAGE, params={"token": link}).status_code == 200

    form = {"token": link, "username": username, "new_password": password}
    response = client.post(PAGE, data=form)

    assert response.status_code == status
    assert reason in response.text
    assert f'value="{escape(username)}"' in response.text
    assert "<script" not in response.text
    assert password not in response.text
    again = client.post(PAGE, data={**form, "username": "mia", "new_password": PASSWORD})
    assert again.status_code == 200
    assert usernames(rows) == ["ada", "mia"]
