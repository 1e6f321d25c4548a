"""Users for the tests, and a way to act as each of them."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, Executable, delete, insert, literal, select, text

from app.auth.passwords import hash_password
from app.auth.sessions import Client, create_login_session
from app.core.commands import run
from app.core.database import Database
from app.models.user import Permission, User, user_permissions
from app.permissions import PermissionName
from tests.conftest import MakeSettings
from tests.conftest import insert_row as insert_row

# Without words: a password must not contain the name of the app, such as "Raft".
PASSWORD = "7q-2x-9k-4z-1v-8w-3j"
NEW_PASSWORD = "5m-8t-1h-6p-3n-9g-2d"
# The body of a request that creates a user.
ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}

LOGIN = "/api/v1/auth/login"
USERS = "/api/v1/users"
ME = "/api/v1/users/me"

Headers = dict[str, str]
MakeUser = Callable[..., int]
LogIn = Callable[[str], Headers]


def execute(rows: Engine, statement: str | Executable, **values: object) -> list[tuple[Any, ...]]:
    """Run a statement and commit it; returns the rows that it found."""
    with rows.begin() as connection:
        query = text(statement) if isinstance(statement, str) else statement
        result = connection.execute(query, values)
        return [tuple(row) for row in result] if result.returns_rows else []


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Hashing is slow on purpose, so it is done once for all users."""
    return run(hash_password(PASSWORD))


@pytest.fixture
def make_user(rows: Engine, password_hash: str) -> MakeUser:
    """`make_user("ada", "users:read")`: a user with PASSWORD and permissions; returns the id."""

    def make(username: str, *permissions: str, is_active: bool = True) -> int:
        with rows.begin() as connection:
            user_id = insert_row(
                connection,
                User.metadata.tables["users"],
                username=username,
                email=f"{username}@example.com",
                password=password_hash,
                is_active=is_active,
            )
        set_permissions(rows, user_id, *permissions)
        return user_id

    return make


def set_permissions(rows: Engine, user_id: int, *names: str) -> None:
    found = select(literal(user_id), Permission.id).where(Permission.name.in_(names))
    execute(rows, delete(user_permissions).where(user_permissions.c.user_id == user_id))
    execute(rows, insert(user_permissions).from_select(["user_id", "permission_id"], found))


@pytest.fixture
def log_in(make_settings: MakeSettings) -> LogIn:
    """`client.get(ME, headers=log_in("ada"))`: begins a login session, without a password."""

    async def begin(username: str) -> Headers:
        settings = make_settings()
        async with Database(settings) as database, database.writers.begin() as session:
            query = select(User.id).where(User.username == username)
            user_id = (await session.scalars(query)).one()
            client = Client("testclient", "testclient")
            issued = await create_login_session(session, settings, user_id, client)
        return {"Authorization": f"Bearer {issued.access_token}"}

    return lambda username: run(begin(username))


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> Headers:
    """The headers of a user with every permission."""
    make_user("admin", *PermissionName)
    return log_in("admin")


@pytest.fixture
def visitor(make_user: MakeUser, log_in: LogIn) -> Headers:
    """The headers of a user who is logged in, but has no permission.

    For a request without a login, pass no headers.
    """
    make_user("visitor")
    return log_in("visitor")
