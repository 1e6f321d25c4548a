"""Text that PostgreSQL cannot store, or that has two meanings, in every part of a request."""

from typing import Annotated

import pytest
from fastapi import FastAPI, Form, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from app.core.routing import Router

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("path", ["/notes", "/own-notes"])
@pytest.mark.parametrize(
    "body",
    [
        rb'{"text": "a\u0000b"}',
        rb'{"text": "a\ud800b"}',
        rb'{"text": "a\udc00\ud800b"}',
        rb'{"text": "a", "tags": ["b", "c\u0000"]}',
        rb'{"text": "a", "counts": {"b\u0000": 1}}',
        rb'{"text": "a", "counts": {"\udfff": 1}}',
        rb'{"text": "a", "unknown": [{"b": "\u0000"}]}',
    ],
)
def test_i4_json_with_a_text_that_cannot_be_stored_is_a_422(
    client: TestClient, path: str, body: bytes
) -> None:
    response = client.post(path, content=body, headers=JSON)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    # The names in the body may be those that a client made up.
    assert (error["loc"], error["type"]) == (["body"], "unstorable_text")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'{"text": "a\\u0000b"}', r"a\u0000b"),
        (rb'{"text": "\ud83d\udc0e"}', "🐎"),
        (b'{"text": "line\\nbreak \xf0\x9f\x90\x8e"}', "line\nbreak 🐎"),
    ],
)
def test_i4_json_with_any_other_text_is_read(client: TestClient, body: bytes, text: str) -> None:
    assert client.post("/notes", content=body, headers=JSON).json() == text


@pytest.mark.parametrize("path", ["/notes/form", "/notes/fields"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"text=a%00b", "unstorable_text"),
        (b"text=a&%00=b", "unstorable_text"),
        (b"text=a%ff", "unstorable_text"),
        (b"text=%ED%A0%80", "unstorable_text"),
        (b"text=a\x00b", "unstorable_text"),
        (b"text=a&text=b", "repeated"),
        (b"text=a&te%78t=a", "repeated"),
    ],
)
def test_i4_a_form_with_two_meanings_or_an_unstorable_text_is_a_422(
    client: TestClient, path: str, body: bytes, kind: str
) -> None:
    response = client.post(path, content=body, headers=FORM)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["type"] == kind


def test_i4_a_list_in_a_form_or_a_query_may_repeat_its_name(client: TestClient) -> None:
    form = client.post("/notes/form", content=b"text=a&tags=b&tags=c", headers=FORM)
    query = client.get("/notes/query?text=a&tags=b&tags=c&other=d&other=e")

    assert (form.json(), query.json()) == (["a", "b", "c"], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("text=a%00", "unstorable_text"),
        ("tags=a&tags=%00", "unstorable_text"),
        ("unknown=%00", "unstorable_text"),
        ("%00=a", "unstorable_text"),
        ("text=%ff", "unstorable_text"),
        ("text=%ED%A0%80", "unstorable_text"),
        ("text=a&text=b", "repeated"),
    ],
)
def test_i4_a_query_with_two_meanings_or_an_unstorable_text_is_a_422(
    client: TestClient, query: str, kind: str
) -> None:
    response = client.get(f"/notes/query?{query}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["type"] == kind


class _Plain(BaseModel):
    named: str


class _Aliased(BaseModel):
    text: str = Field(validation_alias="named")


@pytest.mark.parametrize("path", ["/form", "/fields"])
def test_i4_a_form_field_with_an_alias_is_read_only_once(app: FastAPI, path: str) -> None:
    router = Router()

    @router.post("/form")
    async def read_form(form: Annotated[_Aliased, Form()]) -> str:
        return form.text

    @router.post("/fields")
    async def read_fields(
        text: Annotated[str, Form(validation_alias="named")], other: Annotated[str, Form()] = ""
    ) -> str:
        return text + other

    app.include_router(router)
    with TestClient(app) as client:
        once = client.post(path, content=b"named=a", headers=FORM)
        twice = client.post(path, content=b"named=a&named=b", headers=FORM)

    assert once.json() == "a"
    assert twice.json()["errors"][0]["type"] == "repeated"


@pytest.mark.parametrize("path", ["/model", "/query", "/parameters"])
def test_i4_a_query_field_of_a_model_or_with_an_alias_is_read_only_once(
    app: FastAPI, path: str
) -> None:
    router = Router()

    @router.get("/model")
    async def read_model(query: Annotated[_Plain, Query()]) -> str:
        return query.named

    @router.get("/query")
    async def read_query(query: Annotated[_Aliased, Query()]) -> str:
        return query.text

    @router.get("/parameters")
    async def read_parameters(text: Annotated[str, Query(validation_alias="named")]) -> str:
        return text

    app.include_router(router)
    with TestClient(app) as client:
        once = client.get(f"{path}?named=a")
        twice = client.get(f"{path}?named=a&named=b")

    assert once.json() == "a"
    assert twice.json()["errors"][0]["type"] == "repeated"


@pytest.mark.parametrize("text", ["a%00b", "%ff", "%ED%A0%80"])
def test_i4_a_path_with_an_unstorable_text_is_a_422(client: TestClient, text: str) -> None:
    response = client.get(f"/notes/path/{text}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["path"]


@pytest.mark.parametrize(
    "headers",
    [{b"X-Text": b"a\x00b", b"Cookie": b"text=a"}, {b"X-Text": b"a", b"Cookie": b"text=\x00"}],
)
def test_i4_a_header_with_a_nul_is_a_422(client: TestClient, headers: dict[bytes, bytes]) -> None:
    response = client.get("/notes/header", headers=headers)

    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == ["header"]


def test_i4_texts_of_every_language_are_read_from_every_part(client: TestClient) -> None:
    text = "Größe 🐎 \ufffd"

    assert client.get("/notes/query", params={"text": text}).json() == [text]
    assert client.get(f"/notes/path/{text}").json() == text
    assert client.post("/notes/form", data={"text": text}).json() == [text]
