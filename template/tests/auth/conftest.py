"""Users for the tests, and a way to act as each of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Enum,
    Executable,
    Table,
    create_engine,
    delete,
    insert,
    literal,
    select,
    text,
)

from app.auth.passwords import hash_password
from app.auth.sessions import Client, create_login_session
from app.core.commands import run
from app.core.database import Database, synchronous_url
from app.models.user import Permission, User, user_permissions
from app.permissions import PermissionName
from tests.conftest import MakeSettings

PASSWORD = "seven wet otters on a raft"
NEW_PASSWORD = "nine dry owls on a roof"
# A body that creates a user. Fields that you add to UserCreate go here, too.
ADA = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}

LOGIN = "/api/v1/auth/login"
USERS = "/api/v1/users"
ME = "/api/v1/users/me"

Headers = dict[str, str]
MakeUser = Callable[..., int]
LogIn = Callable[[str], Headers]


@pytest.fixture
def rows(database_url: str) -> Iterator[Engine]:
    """Reads and changes the database without the app; see `execute`."""
    engine = create_engine(synchronous_url(database_url))
    yield engine
    engine.dispose()


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
    """The headers of a user without permissions."""
    make_user("visitor")
    return log_in("visitor")


def insert_row(connection: Connection, table: Table, **values: object) -> int:
    """Insert a row. Columns of yours that need a value get one that fits their type."""
    for column in table.columns:
        is_optional = column.nullable or column.primary_key
        has_default = column.default is not None or column.server_default is not None
        if column.key not in values and not is_optional and not has_default:
            values[column.key] = _sample(connection, column)
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    return int(key[0]) if key else 0


def _sample(connection: Connection, column: Column[Any]) -> object:
    for foreign_key in column.foreign_keys:
        return insert_row(connection, foreign_key.column.table)
    kind = getattr(column.type, "impl_instance", column.type)
    if isinstance(kind, Enum):
        return next(iter(kind.enum_class or kind.enums))
    # Random, since the column may be unique.
    random = uuid4()
    samples: dict[type, object] = {
        str: random.hex[: getattr(kind, "length", None)],
        int: random.int % 2**15,
        bool: False,
        float: 0.5,
        Decimal: Decimal(1),
        bytes: random.bytes,
        UUID: random,
        datetime: datetime.now(UTC),
        date: datetime.now(UTC).date(),
        time: time(12),
        timedelta: timedelta(days=1),
    }
    return samples.get(kind.python_type, {})
