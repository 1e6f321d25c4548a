"""What benavlabs/FastAPI-boilerplate's generated code does for the same work.

After github.com/benavlabs/FastAPI-boilerplate, src/app/api/dependencies.py and v1/users.py: an
asynchronous session; a JWT that is looked up in a table of withdrawn ones, then the user by name;
rows as dictionaries, by its FastCRUD; a list with its count and OFFSET; two looks for duplicates
before a create, and the new row read again. It has no permissions: here they are read as it joins.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel
from sqlalchemy import exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.client import App, Requests
from benchmarks.databases import ADMINISTRATOR
from benchmarks.targets.common import (
    ALGORITHM,
    KEY,
    Permission,
    User,
    UserCreate,
    UserRead,
    columns,
    hashed,
    links,
)

app = FastAPI()
bearer = OAuth2PasswordBearer("/api/v1/login")
state: dict[str, Any] = {}


class Users(BaseModel):
    data: list[UserRead]
    total_count: int
    has_more: bool
    page: int
    items_per_page: int


async def get_session() -> AsyncIterator[AsyncSession]:
    async with state["sessions"]() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
COLUMNS = (User.id, User.username, User.email, User.password, User.is_active)


async def get(session: AsyncSession, condition: Any) -> dict[str, Any] | None:
    row = (await session.execute(select(*COLUMNS).where(condition))).mappings().first()
    return dict(row) if row else None


async def held(session: AsyncSession, numbers: list[int]) -> dict[int, list[dict[str, Any]]]:
    statement = (
        select(links.c.user_id, Permission.id, Permission.name, Permission.description)
        .join(Permission, Permission.id == links.c.permission_id)
        .where(links.c.user_id.in_(numbers))
    )
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in numbers}
    for row in (await session.execute(statement)).mappings():
        found[row["user_id"]].append(dict(row))
    return found


async def get_user(token: Annotated[str, Depends(bearer)], session: SessionDep) -> dict[str, Any]:
    withdrawn = text("SELECT EXISTS (SELECT 1 FROM token_blacklist WHERE token = :token)")
    if await session.scalar(withdrawn, {"token": token}):
        raise HTTPException(401)
    payload = jwt.decode(token, KEY, [ALGORITHM])
    user = await get(session, User.username == payload["sub"])
    if user is None:
        raise HTTPException(401)
    permissions = (await held(session, [user["id"]]))[user["id"]]
    if not any(permission["name"] == "users:read" for permission in permissions):
        raise HTTPException(403)
    return user


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/users", dependencies=[Depends(get_user)], response_model=Users)
async def read_users(session: SessionDep, page: int = 1, items_per_page: int = 10) -> Any:
    statement = select(*COLUMNS).offset((page - 1) * items_per_page).limit(items_per_page)
    rows = [dict(row) for row in (await session.execute(statement)).mappings()]
    total = await session.scalar(select(func.count()).select_from(User)) or 0
    permissions = await held(session, [row["id"] for row in rows])
    return {
        "data": [{**row, "permissions": permissions[row["id"]]} for row in rows],
        "total_count": total,
        "has_more": page * items_per_page < total,
        "page": page,
        "items_per_page": items_per_page,
    }


@app.post("/users", dependencies=[Depends(get_user)], response_model=UserRead, status_code=201)
async def create_user(data: UserCreate, session: SessionDep) -> Any:
    for condition in (User.email == data.email, User.username == data.username):
        if await session.scalar(select(exists().where(condition))):
            raise HTTPException(422)
    user = User(
        username=data.username, email=data.email, password=hashed(data.password), is_active=True
    )
    session.add(user)
    await session.commit()
    await session.refresh(user)
    return {**columns(user), "permissions": []}


@app.get("/users/{user_id}", dependencies=[Depends(get_user)], response_model=UserRead)
async def read_user(user_id: int, session: SessionDep) -> Any:
    user = await get(session, User.id == user_id)
    if user is None:
        raise HTTPException(404)
    return {**user, "permissions": (await held(session, [user_id]))[user_id]}


@asynccontextmanager
async def opened(_: Path, database: Path) -> AsyncIterator[tuple[App, Requests]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
    async with engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE token_blacklist (id INTEGER PRIMARY KEY, token TEXT UNIQUE)")
        )
    state["sessions"] = async_sessionmaker(engine, expire_on_commit=False)
    payload = {"sub": ADMINISTRATOR, "exp": time.time() + 86400}
    yield (
        app,
        Requests(
            token=jwt.encode(payload, KEY, ALGORITHM),
            user=lambda n: f"/users/{n}",
            page=lambda n: f"/users?page={n // 50 + 1}&items_per_page=50",
            create="/users",
            stamp=time.time_ns(),
        ),
    )
    await engine.dispose()
