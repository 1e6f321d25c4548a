"""A replica of what benavlabs/FastAPI-boilerplate's generated code does, on SQLite.

After github.com/benavlabs/FastAPI-boilerplate, src/app/api/dependencies.py and v1/users.py: an
asynchronous session; a JWT that is looked up in a table of withdrawn ones, then the user by name;
rows as dictionaries, by its FastCRUD; a list with its count and OFFSET, and a create with two looks
for duplicates and the new row read again, both without a login. A middleware adds a header.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import jwt
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel
from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from benchmarks.targets.common import (
    ALGORITHM,
    DATABASE,
    KEY,
    User,
    UserCreate,
    UserRead,
    WithdrawnToken,
    hashed,
)

router = APIRouter(prefix="/v1")
bearer = OAuth2PasswordBearer("/login")
sessions = async_sessionmaker(
    create_async_engine(f"sqlite+aiosqlite:///{DATABASE}"), expire_on_commit=False
)


class Users(BaseModel):
    data: list[UserRead]
    total_count: int
    has_more: bool
    page: int
    items_per_page: int


async def cache(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["Cache-Control"] = "public, max-age=60"
    return response


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
COLUMNS = tuple(User.__table__.columns)


async def get(session: AsyncSession, *conditions: Any) -> dict[str, Any] | None:
    row = (await session.execute(select(*COLUMNS).where(*conditions))).mappings().first()
    return dict(row) if row else None


async def get_user(token: Annotated[str, Depends(bearer)], session: SessionDep) -> dict[str, Any]:
    if await session.scalar(select(exists().where(WithdrawnToken.token == token))):
        raise HTTPException(401)
    payload = jwt.decode(token, KEY, [ALGORITHM])
    user = await get(session, User.username == payload["sub"], User.is_deleted.is_(False))
    if user is None:
        raise HTTPException(401)
    return user


@router.get("/health")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/users", response_model=Users)
async def read_users(session: SessionDep, page: int = 1, items_per_page: int = 10) -> Any:
    chosen = select(*COLUMNS).where(User.is_deleted.is_(False))
    statement = chosen.offset((page - 1) * items_per_page).limit(items_per_page)
    rows = [dict(row) for row in (await session.execute(statement)).mappings()]
    total = await session.scalar(select(func.count()).select_from(chosen.subquery())) or 0
    return {
        "data": rows,
        "total_count": total,
        "has_more": page * items_per_page < total,
        "page": page,
        "items_per_page": items_per_page,
    }


@router.post("/user", response_model=UserRead, status_code=201)
async def create_user(data: UserCreate, session: SessionDep) -> Any:
    for condition in (User.email == data.email, User.username == data.username):
        if await session.scalar(select(exists().where(condition))):
            raise HTTPException(422)
    user = User(username=data.username, email=data.email, password=hashed(data.password))
    session.add(user)
    await session.commit()
    return await get(session, User.id == user.id)


@router.get("/user/me/", response_model=UserRead)
async def read_me(user: Annotated[dict[str, Any], Depends(get_user)]) -> Any:
    return user


api_router = APIRouter(prefix="/api")
api_router.include_router(router)
app = FastAPI()
app.include_router(api_router)
app.add_middleware(BaseHTTPMiddleware, dispatch=cache)
