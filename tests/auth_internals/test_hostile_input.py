"""What no well-meaning client sends, to every route: a 4xx that quotes nothing, and never a 500."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from tests.auth_internals.helpers import (
    ADA,
    LOGIN,
    PASSWORD,
    USERS,
    MakeUser,
    Operation,
    execute,
    fill,
    operations,
)

MARK = "hostile-mark"

BODIES = {
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "string": b'"hostile-mark"',
    "number": b"1",
    "no JSON": b"{hostile-mark",
    "NaN": b'{"username": NaN}',
    "Infinity": b'{"username": -Infinity}',
    "1e999": b'{"username": 1e999}',
    "5000 digits": b'{"username": ' + b"9" * 5000 + b"}",
    "100k nesting": b"[" * 100_000,
    "closed nesting": b'{"username":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "same name twice": b'{"username": "hostile-mark", "username": "hostile-mark"}',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"username": "hostile-mark"}'.encode("utf-16"),
    "UTF-32": '{"username": "hostile-mark"}'.encode("utf-32-le"),
    "no UTF-8": b'{"username": "hostile-mark\xff"}',
    "surrogate": b'{"username": "hostile-mark\\ud800"}',
    "surrogate key": b'{"\\ud800hostile-mark": 1}',
    "unknown key": b'{"hostile-mark": 1}',
}

# Values for every text field of every body.
TEXTS = {
    "NUL": f"{MARK}\x00",
    "escape": f"{MARK}\x1b[31m",
    "C1": f"{MARK}\x9b",
    "bidi": f"{MARK}\u202e",
    "line separator": f"{MARK}\u2028",
    "long": MARK * 10_000,
    "SQL": f"{MARK}' OR 1=1; DROP TABLE users; --",
    "format": f"{MARK}%s%n$" + "{jndi:ldap://x}",
    "not text": {"a": [MARK]},
    "number": 2**70,
    "bool": True,
}

NUMBERS = ["0", "-1", str(2**63), str(2**70), "9" * 5000, "1.5", "０１", "1e3", "abc", "%00"]


def write_operations(app: FastAPI) -> list[Operation]:
    """Those that read a JSON object of a declared shape."""
    return [
        item
        for item in operations(app)
        if "$ref" in body_of(item[2]).get("application/json", {}).get("schema", {})
    ]


def body_of(operation: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    return content


def assert_rejected_without_a_quote(response: Response) -> None:
    about = (response.request.method, response.url, response.text)
    assert 400 <= response.status_code < 500, about
    assert response.headers["content-type"] == "application/problem+json"
    # `instance` is the path, where the client itself put it.
    problem = {key: value for key, value in response.json().items() if key != "instance"}
    assert MARK not in json.dumps(problem), about


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_i4_a_malformed_body_is_rejected_and_never_quoted(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str], rows: Engine, body: bytes
) -> None:
    before = execute(rows, "SELECT * FROM users ORDER BY id")
    headers = {**admin, "Content-Type": "application/json"}
    assert len(write_operations(shared_app)) >= 5
    for method, path, _ in write_operations(shared_app):
        response = client.request(method, fill(path), content=body, headers=headers)
        assert_rejected_without_a_quote(response)
    assert execute(rows, "SELECT * FROM users ORDER BY id") == before


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS.keys())
def test_i4_x2_hostile_text_is_never_quoted_and_never_a_500(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str], value: object
) -> None:
    schemas = shared_app.openapi()["components"]["schemas"]
    for method, path, operation in write_operations(shared_app):
        name = body_of(operation)["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for field in schemas[name]["properties"]:
            response = client.request(method, fill(path), json={field: value}, headers=admin)
            if response.status_code >= 400:
                assert_rejected_without_a_quote(response)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_i5_another_content_type_is_a_415(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str], kind: str
) -> None:
    headers = {**admin, "Content-Type": kind}
    for method, path, _ in write_operations(shared_app):
        response = client.request(method, fill(path), content=b"{}", headers=headers)
        assert response.status_code == 415, path


def test_i3_a_body_over_one_mebibyte_is_a_413_on_every_route(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str]
) -> None:
    for method, path, _ in operations(shared_app):
        content = b" " * (2**20 + 1)
        response = client.request(method, fill(path), content=content, headers=admin)
        assert response.status_code == 413, path


@pytest.mark.parametrize("number", NUMBERS)
def test_i1_an_impossible_id_is_never_a_500(
    shared_app: FastAPI, client: TestClient, admin: dict[str, str], number: str
) -> None:
    for method, path, operation in operations(shared_app):
        if "{" in path:
            response = client.request(method, fill(path, number), headers=admin)
            assert response.status_code in {404, 405, 422}, (method, path)
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query":
                query = {parameter["name"]: number}
                response = client.get(fill(path), params=query, headers=admin)
                assert response.status_code in {200, 404, 422}, (path, parameter["name"])


@pytest.mark.parametrize("largest", [2**31, 2**63 - 1])
def test_i1_the_largest_possible_id_is_not_found(
    client: TestClient, admin: dict[str, str], largest: int
) -> None:
    assert client.get(f"{USERS}/{largest}", headers=admin).status_code == 404
    assert client.delete(f"{USERS}/{largest}", headers=admin).status_code == 404


@pytest.mark.parametrize(
    "params",
    [
        {"limit": -1},
        {"limit": 0},
        {"limit": 101},
        {"limit": 2**70},
        {"cursor": "Zm9yZ2Vk"},
        {"cursor": "LTE"},
        {"cursor": "\u0660"},
        {"cursor": "x" * 10_000},
        {"q": "\x00"},
        {"q": "\u202e"},
        {"q": "x" * 101},
    ],
    ids=lambda params: repr(params)[:32],
)
def test_i2_i7_a_forged_cursor_limit_or_search_is_a_422(
    client: TestClient, admin: dict[str, str], params: dict[str, str | int]
) -> None:
    assert client.get(USERS, params=params, headers=admin).status_code == 422


@pytest.mark.parametrize("q", ["' OR 1=1 --", "%", "_", "\\", "%' ESCAPE '%", "ẞ", "İ", "🐎"])
def test_i7_a_search_is_text_and_never_sql(
    client: TestClient, admin: dict[str, str], q: str
) -> None:
    response = client.get(USERS, params={"q": q}, headers=admin)

    assert response.json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"username=ada",
        b"username=ada&username=bob&password=x",
        b"username=%00&password=%00",
        b"username=ada&password=x&" + b"&".join(b"f%d=1" % n for n in range(1001)),
        b"grant_type=refresh_token&username=ada&password=x",
        b"username=" + "ﬀ".encode() * 1000 + b"&password=x",
        b"username=%ED%A0%80&password=x",
        b"username=%0d%0aforged&password=x",
        b"username=ada@" + b"x" * 5000 + b"&password=x",
    ],
    ids=lambda form: repr(form[:40]),
)
def test_i4_a_malformed_form_is_rejected(
    client: TestClient, make_user: MakeUser, form: bytes
) -> None:
    make_user("ada")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    response = client.post(LOGIN, content=form, headers=headers)

    assert response.status_code in {400, 401, 422}


@pytest.mark.parametrize("length", [32, 33])
def test_i6_a_username_has_at_most_32_characters(
    client: TestClient, admin: dict[str, str], length: int
) -> None:
    data = {**ADA, "username": "x" * length}

    status = client.post(USERS, json=data, headers=admin).status_code

    assert status == (201 if length == 32 else 422)


@pytest.mark.parametrize(
    "body", [{"permissions": ["A"] * 1000}, {f"field {n}": 1 for n in range(5000)}]
)
def test_i4_a_response_is_not_many_times_as_long_as_its_request(
    client: TestClient, admin: dict[str, str], body: dict[str, object]
) -> None:
    response = client.put(f"{USERS}/1/permissions", json=body, headers=admin)

    assert response.status_code == 422
    assert len(response.json()["errors"]) == 50


def test_x2_a_password_is_never_quoted_from_any_place(
    client: TestClient, admin: dict[str, str]
) -> None:
    for body in (
        {"username": PASSWORD, "email": PASSWORD, "password": 1},
        {PASSWORD: 1},
        [PASSWORD],
        PASSWORD,
        {"username": {PASSWORD: PASSWORD}},
    ):
        response = client.post(USERS, json=body, headers=admin)
        assert response.status_code == 422
        assert PASSWORD not in response.text
