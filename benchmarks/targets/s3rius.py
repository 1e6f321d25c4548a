"""What s3rius/FastAPI-template's generated code does for the same work.

After github.com/s3rius/FastAPI-template with SQLAlchemy and its users: an asynchronous session for
each request, committed after the answer was made; a data access object; a JWT as its fastapi-users
checks it, with the audience, and the user by its id; lists with OFFSET, without a count.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload

from benchmarks.client import App, Requests
from benchmarks.targets.common import (
    ALGORITHM,
    KEY,
    User,
    UserCreate,
    UserRead,
    hashed,
    may,
)

AUDIENCE = ["fastapi-users:auth"]
app = FastAPI()
bearer = OAuth2PasswordBearer("/auth/jwt/login")
with_permissions = selectinload(User.permissions)


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    session: AsyncSession = request.app.state.db_session_factory()
    try:
        yield session
        await session.commit()
    finally:
        await session.close()


SessionDep = Annotated[AsyncSession, Depends(get_session)]


class UserDAO:
    def __init__(self, session: SessionDep) -> None:
        self.session = session

    async def get(self, user_id: int) -> User | None:
        query = select(User).where(User.id == user_id).options(with_permissions)
        return (await self.session.scalars(query)).one_or_none()

    async def get_all(self, limit: int, offset: int) -> Sequence[User]:
        query = select(User).options(with_permissions).limit(limit).offset(offset)
        return (await self.session.scalars(query)).all()

    async def create(self, data: UserCreate) -> User:
        user = User(
            username=data.username,
            email=data.email,
            password=hashed(data.password),
            is_active=True,
            permissions=[],
        )
        self.session.add(user)
        await self.session.flush()
        return user


DaoDep = Annotated[UserDAO, Depends()]


async def get_user(dao: DaoDep, token: Annotated[str, Depends(bearer)]) -> User:
    payload = jwt.decode(token, KEY, [ALGORITHM], audience=AUDIENCE)
    user = await dao.get(int(payload["sub"]))
    if user is None or not user.is_active or not may(user, "users:read"):
        raise HTTPException(403)
    return user


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/users", dependencies=[Depends(get_user)], response_model=list[UserRead])
async def read_users(dao: DaoDep, limit: int = 10, offset: int = 0) -> Any:
    return await dao.get_all(limit, offset)


@app.post("/users", dependencies=[Depends(get_user)], response_model=UserRead, status_code=201)
async def create_user(data: UserCreate, dao: DaoDep) -> Any:
    return await dao.create(data)


@app.get("/users/{user_id}", dependencies=[Depends(get_user)], response_model=UserRead)
async def read_user(user_id: int, dao: DaoDep) -> Any:
    return await dao.get(user_id)


@asynccontextmanager
async def opened(_: Path, database: Path) -> AsyncIterator[tuple[App, Requests]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
    app.state.db_session_factory = async_sessionmaker(engine, expire_on_commit=False)
    payload = {"sub": "1", "aud": AUDIENCE, "exp": time.time() + 86400}
    yield (
        app,
        Requests(
            token=jwt.encode(payload, KEY, ALGORITHM),
            user=lambda n: f"/users/{n}",
            page=lambda n: f"/users?limit=50&offset={n}",
            create="/users",
            stamp=time.time_ns(),
        ),
    )
    await engine.dispose()
