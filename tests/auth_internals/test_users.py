"""Users: their names, and lists of them."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.api.deps import PageDep, SessionDep
from app.core.pagination import Page, paginate
from app.core.routing import Router
from app.main import create_app
from app.models.user import Permission
from app.schemas.user import PermissionRead
from tests.auth_internals.helpers import ADA, ME, USERS, MakeUser, header_of
from tests.conftest import SERVER, MakeSettings


def test_a_list_is_read_page_by_page(app: FastAPI) -> None:
    router = Router(prefix="/things")

    @router.post("")
    async def create_things(session: SessionDep) -> None:
        session.add_all(Permission(name=f"thing {n}", description="") for n in range(7))

    @router.get("", response_model=Page[PermissionRead])
    async def list_things(page: PageDep, session: SessionDep) -> Page[Permission]:
        statement = select(Permission).where(Permission.name.startswith("thing"))
        return await paginate(session, statement, page)

    app.include_router(router)
    with TestClient(app) as client:
        assert client.get("/things").json() == {"items": [], "next": None}
        client.post("/things")
        pages = [client.get("/things", params={"limit": 3}).json()]
        while cursor := pages[-1]["next"]:
            page = client.get("/things", params={"limit": 3, "cursor": cursor})
            pages.append(page.json())

    assert [[item["name"] for item in page["items"]] for page in pages] == [
        ["thing 0", "thing 1", "thing 2"],
        ["thing 3", "thing 4", "thing 5"],
        ["thing 6"],
    ]


def test_i2_users_are_listed_in_pages(
    client: TestClient, admin: dict[str, str], make_user: MakeUser
) -> None:
    for name in ("a_b", "axb", "bob"):
        make_user(name, "users:read")

    def names(**params: str | int) -> list[str]:
        response = client.get(USERS, params=params, headers=admin)
        assert response.status_code == 200
        return [user["username"] for user in response.json()["items"]]

    assert names() == ["admin", "a_b", "axb", "bob"]
    first = client.get(USERS, params={"limit": 3}, headers=admin).json()
    assert len(first["items"]) == 3
    assert names(limit=3, cursor=first["next"]) == ["bob"]
    assert first["items"][1]["permissions"][0]["name"] == "users:read"


@pytest.mark.parametrize("q", [None, "", "user-"])
def test_users_are_listed_in_either_order_of_their_ids_and_in_no_other(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, q: str | None
) -> None:
    made = [make_user(f"user-{number}") for number in range(3)]
    params = {} if q is None else {"q": q}

    def ids(order: str, **options: str) -> list[int]:
        given = {**params, "order": order, "limit": "2", **options}
        response = client.get(USERS, params=given, headers=admin)
        assert response.status_code == 200, response.text
        page = response.json()
        found = [user["id"] for user in page["items"]]
        return found + (ids(order, cursor=page["next"]) if page["next"] else [])

    assert [found for found in ids("-id") if found in made] == made[::-1]
    assert ids("id") == ids("-id")[::-1]
    given = {**params, "order": "-username"}
    assert client.get(USERS, params=given, headers=admin).status_code == 422


@pytest.mark.parametrize("username", ["ada", "ADA", " ada ", "ａｄａ", "\u1d2c\u1d30\u1d2c"])
def test_i8_a_username_is_taken_in_every_spelling(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, username: str
) -> None:
    make_user("ada")
    data = {**ADA, "username": username, "email": "other@example.com"}

    response = client.post(USERS, json=data, headers=admin)

    assert response.status_code == 409
    assert response.json()["detail"] == "This username or email address is already taken."


@pytest.mark.parametrize(
    ("username", "status"),
    [
        # It folds to plain letters.
        ("straße", 201),
        *((name, 422) for name in ("İpek", "ıpek", "a\u0308da", "аda", "a da", "ad")),
    ],
)
def test_i8_a_username_with_other_letters_is_rejected_and_not_confused(
    client: TestClient, admin: dict[str, str], username: str, status: int
) -> None:
    response = client.post(USERS, json={**ADA, "username": username}, headers=admin)

    assert response.status_code == status


@pytest.mark.parametrize(
    "email", ["ADA@EXAMPLE.COM", "ada@EXAMPLE.com", "ａda@example.com", " ada@example.com"]
)
def test_i8_an_email_address_is_taken_in_every_spelling(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, email: str
) -> None:
    make_user("ada")
    data = {**ADA, "username": "other", "email": email}

    assert client.post(USERS, json=data, headers=admin).status_code == 409


def test_i8_the_domain_of_an_email_address_stays_the_same_domain(
    client: TestClient, admin: dict[str, str]
) -> None:
    """Case folding would turn straße.de into strasse.de, which belongs to somebody else."""
    for number, domain in enumerate(["straße.de", "strasse.de", "STRASSE.de"]):
        data = {**ADA, "username": f"ada-{number}", "email": f"ada@{domain}"}
        created = client.post(USERS, json=data, headers=admin)
        if number < 2:
            assert created.json()["email"] == f"ada@{domain}"
        else:
            assert created.status_code == 409


@pytest.mark.parametrize(
    "email", ["zoe", "zoe@", "@example.org", "ada@@example.com", "ada@localhost", "a b@example.com"]
)
def test_x2_an_impossible_email_address_is_rejected_and_not_quoted(
    client: TestClient, admin: dict[str, str], email: str
) -> None:
    response = client.post(USERS, json={**ADA, "email": email}, headers=admin)

    assert response.status_code == 422
    assert email not in json.dumps(response.json()["errors"])


def test_i9_of_twenty_equal_users_at_once_one_is_created(
    client: TestClient, admin: dict[str, str]
) -> None:
    def create(_: int) -> int:
        return client.post(USERS, json=ADA, headers=admin).status_code

    with ThreadPoolExecutor(20) as clients:
        assert Counter(clients.map(create, range(20))) == {201: 1, 409: 19}


def test_i9_two_users_who_take_each_others_name_at_once_are_both_answered(
    make_settings: MakeSettings, make_user: MakeUser
) -> None:
    workers = [TestClient(create_app(make_settings())) for _ in range(2)]
    with workers[0], workers[1], ThreadPoolExecutor(2) as people:
        assert {worker.get(ME).status_code for worker in workers} == {401}
        statuses: Counter[int] = Counter()
        for number in range(4):
            names = [f"ada-{number}", f"bob-{number}"]
            for name in names:
                make_user(name)
            headers = [header_of(worker, name) for worker, name in zip(workers, names, strict=True)]

            def rename(
                who: int, headers: list[dict[str, str]] = headers, names: list[str] = names
            ) -> int:
                other = names[1 - who]
                data = {"username": other, "email": f"{other}@example.com"}
                return workers[who].patch(ME, json=data, headers=headers[who]).status_code

            statuses.update(people.map(rename, [0, 1] * 3))

    assert statuses.keys() <= {409, 429}, statuses


def test_a_new_user_is_found_at_its_location_until_it_is_deleted(
    client: TestClient, admin: dict[str, str]
) -> None:
    created = client.post(USERS, json=ADA, headers=admin)

    assert created.status_code == 201
    location = created.headers["location"]
    found = client.get(location, headers=admin).json()
    assert found == created.json()
    assert found.keys() == {"id", "username", "email", "is_active", "permissions"}
    assert client.delete(location, headers=admin).status_code == 204
    assert client.get(location, headers=admin).status_code == 404


def test_a_change_keeps_the_fields_that_it_does_not_name(
    client: TestClient, visitor: dict[str, str]
) -> None:
    change = {"email": "New@Example.com", "username": None}

    changed = client.patch(ME, json=change, headers=visitor)

    assert changed.json()["email"] == "new@example.com"
    assert changed.json()["username"] == "visitor"


def test_i11_the_path_of_oneself_is_not_the_path_of_an_id(
    client: TestClient, admin: dict[str, str]
) -> None:
    response = client.delete(ME, headers=admin)

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, PATCH"


def test_a_user_is_loaded_once_for_a_change_and_its_response(
    client: TestClient, admin: dict[str, str], make_user: MakeUser, statements: Counter[str]
) -> None:
    user_id = make_user("ada", "users:read")
    statements.clear()

    response = client.patch(f"{USERS}/{user_id}", json={"email": "new@example.com"}, headers=admin)

    assert response.json()["email"] == "new@example.com"
    assert [held["name"] for held in response.json()["permissions"]] == ["users:read"]
    # PostgreSQL also locks rows, which SQLite does not need.
    assert statements["SELECT"] == (6 if SERVER else 4)
