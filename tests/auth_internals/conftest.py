from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import Session

from app.auth import links, passwords, service
from app.core.database import Database, synchronous_url
from app.models.user import Permission, User
from app.permissions import PermissionName
from tests.auth_internals.helpers import PASSWORD, LogIn, MakeUser, Statements, header_of
from tests.conftest import MakeSettings
from tests.core.routes import with_routes_of

REAL_HASHER, REAL_DUMMY_HASH = passwords.HASHER, passwords.DUMMY_HASH
CHEAP_HASHER = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
CHEAP_DUMMY_HASH = REAL_DUMMY_HASH.replace("m=19456,t=2,p=1", "m=8,t=1,p=1")


REAL_FAILURE_SECONDS = service._FAILURE_SECONDS
REAL_REQUEST_SECONDS = links._REQUEST_SECONDS


def use_hasher(monkeypatch: pytest.MonkeyPatch, hasher: PasswordHash, dummy_hash: str) -> None:
    monkeypatch.setattr(passwords, "HASHER", hasher)
    for module in (passwords, service):
        monkeypatch.setattr(module, "DUMMY_HASH", dummy_hash)


@pytest.fixture(autouse=True)
def _cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing and failing are slow on purpose, and would take most of the time here."""
    use_hasher(monkeypatch, CHEAP_HASHER, CHEAP_DUMMY_HASH)
    monkeypatch.setattr(service, "_FAILURE_SECONDS", 0)
    monkeypatch.setattr(links, "_REQUEST_SECONDS", 0)


@pytest.fixture
def real_hashing(_cheap_hashing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that depends on the cost of a hash, or of a failed login."""
    use_hasher(monkeypatch, REAL_HASHER, REAL_DUMMY_HASH)
    monkeypatch.setattr(service, "_FAILURE_SECONDS", REAL_FAILURE_SECONDS)
    monkeypatch.setattr(links, "_REQUEST_SECONDS", REAL_REQUEST_SECONDS)


@pytest.fixture(scope="session")
def password_hash() -> str:
    return CHEAP_HASHER.hash(PASSWORD)


@pytest.fixture
def app(shared_app: FastAPI, make_settings: MakeSettings) -> FastAPI:
    """A new app with the routes of the shared one, to which a test may add."""
    return with_routes_of(shared_app, make_settings())


@pytest.fixture
def rows(database_url: str) -> Iterator[Engine]:
    """A connection to the database, besides those of the app."""
    engine = create_engine(synchronous_url(database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def make_user(rows: Engine, password_hash: str) -> MakeUser:
    """Create a user whose password is PASSWORD, with these permissions; returns the id."""

    def make(username: str, *permissions: str, is_active: bool = True) -> int:
        with Session(rows) as session, session.begin():
            names = [str(name) for name in permissions]
            user = User(
                username=username,
                email=f"{username}@example.com",
                password=password_hash,
                is_active=is_active,
                permissions=[
                    *session.scalars(select(Permission).where(Permission.name.in_(names)))
                ],
            )
            assert len(user.permissions) == len(names)
            session.add(user)
            session.flush()
            return user.id

    return make


@pytest.fixture
def log_in(client: TestClient) -> LogIn:
    return lambda username, password=PASSWORD: header_of(client, username, password)


@pytest.fixture
def admin(make_user: MakeUser, log_in: LogIn) -> dict[str, str]:
    """The header of a user with every permission."""
    make_user("admin", *PermissionName)
    return log_in("admin")


@pytest.fixture
def visitor(make_user: MakeUser, log_in: LogIn) -> dict[str, str]:
    """The header of a user without permissions."""
    make_user("visitor")
    return log_in("visitor")


@pytest.fixture
def manager(make_user: MakeUser, log_in: LogIn) -> dict[str, str]:
    """The header of a user who may grant permissions and change users, but not see them."""
    make_user("manager", PermissionName.USERS_WRITE, PermissionName.PERMISSIONS_WRITE)
    return log_in("manager")


@pytest.fixture
def statements(app: FastAPI, client: TestClient) -> Counter[str]:
    """How often the app has sent each kind of statement, by its first word."""
    counts: Counter[str] = Counter()
    listen(app, lambda *args: counts.update([args[2].split()[0]]))
    return counts


@pytest.fixture
def sent(app: FastAPI, client: TestClient) -> Statements:
    """All statements that the app sends, with their parameters."""
    found: Statements = []
    listen(app, lambda *args: found.append(args[2:4]))
    return found


def listen(app: FastAPI, note: Callable[..., None]) -> None:
    database: Database = app.state.database
    for engine in database.engines.values():
        event.listen(engine, "before_cursor_execute", note)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stored hash has been verified. The verification itself is the real one."""
    counts: Counter[str] = Counter()
    verify = passwords.HASHER.verify_and_update

    def count(password: bytes, stored_hash: str) -> tuple[bool, str | None]:
        counts[stored_hash] += 1
        return verify(password, stored_hash)

    monkeypatch.setattr(passwords.HASHER, "verify_and_update", count)
    return counts
