"""An app on Litestar with advanced-alchemy, on SQLite, as the documentation of both builds one.

A service over a repository, schemas of msgspec, a JWT and the user by its id; a list with its count
and OFFSET; a create that is committed before its response is sent.
"""

# Its libraries are only in the environment where it runs.
# mypy: ignore-errors

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
)
from advanced_alchemy.filters import LimitOffset
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination, SQLAlchemyAsyncRepositoryService
from litestar import Controller, Litestar, Request, get, post
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.security.jwt import OAuth2PasswordBearerAuth, Token
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.targets.common import DATABASE, KEY, User, hashed


class UserRead(Struct):
    id: UUID
    username: str
    email: str
    is_active: bool
    is_superuser: bool
    created_at: datetime


class UserCreate(Struct):
    username: str
    email: str
    password: str


class UserRepository(SQLAlchemyAsyncRepository[User]):
    model_type = User


class UserService(SQLAlchemyAsyncRepositoryService[User]):
    repository_type = UserRepository
    # A window function would count every row for each that it returns.
    count_with_window_function = False


async def provide_users(db_session: AsyncSession) -> AsyncIterator[UserService]:
    async with UserService.new(session=db_session) as users:
        yield users


async def retrieve_user(token: Token, connection: ASGIConnection[Any, Any, Any, Any]) -> Any:
    session = alchemy.provide_session(connection.app.state, connection.scope)
    async for users in provide_users(session):
        return await users.get_one_or_none(id=UUID(token.sub))


class Users(Controller):
    path = "/users"
    dependencies: ClassVar = {"users": Provide(provide_users)}

    @get("/")
    async def read_users(
        self, users: UserService, limit: int = 50, offset: int = 0
    ) -> OffsetPagination[UserRead]:
        page = LimitOffset(limit, offset)
        rows, total = await users.list_and_count(page)
        return users.to_schema(rows, total, filters=[page], schema_type=UserRead)

    @get("/me")
    async def read_me(self, users: UserService, request: Request[User, Token, Any]) -> UserRead:
        return users.to_schema(request.user, schema_type=UserRead)

    @post("/")
    async def create_user(self, users: UserService, data: UserCreate) -> UserRead:
        user = User(username=data.username, email=data.email, password=hashed(data.password))
        return users.to_schema(await users.create(user), schema_type=UserRead)


@get("/health")
async def read_health() -> dict[str, str]:
    return {"status": "ok"}


alchemy = SQLAlchemyAsyncConfig(
    connection_string=f"sqlite+aiosqlite:///{DATABASE}",
    session_config=AsyncSessionConfig(expire_on_commit=False),
    before_send_handler="autocommit",
)
bearer = OAuth2PasswordBearerAuth[User, Token](
    retrieve_user_handler=retrieve_user,
    token_secret=KEY,
    token_url="/login",  # noqa: S106
    exclude=["/health", "/schema"],
)
app = Litestar(
    route_handlers=[read_health, Users],
    plugins=[SQLAlchemyPlugin(config=alchemy)],
    on_app_init=[bearer.on_app_init],
)
