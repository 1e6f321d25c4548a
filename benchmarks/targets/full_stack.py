"""What full-stack-fastapi-template's generated code does for the same work.

After github.com/fastapi/full-stack-fastapi-template, backend/app/api/deps.py and routes/users.py:
functions in a thread pool, a synchronous session, a JWT and the user by its id, relations loaded as
they are touched, a list with its count and OFFSET, a look for a duplicate before a create, and a
refresh after its commit. Its SQLModel is the same ORM underneath.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

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

app = FastAPI()
bearer = OAuth2PasswordBearer("/login")
state: dict[str, Any] = {}


class Users(BaseModel):
    data: list[UserRead]
    count: int


class TokenPayload(BaseModel):
    sub: str | None = None


def get_session() -> Iterator[Session]:
    with Session(state["engine"]) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


def get_user(session: SessionDep, token: Annotated[str, Depends(bearer)]) -> User:
    payload = TokenPayload.model_validate(jwt.decode(token, KEY, [ALGORITHM]))
    user = session.get(User, int(payload.sub or 0))
    if user is None or not user.is_active:
        raise HTTPException(403)
    return user


CurrentUser = Annotated[User, Depends(get_user)]


def get_reader(user: CurrentUser) -> User:
    if not may(user, "users:read"):
        raise HTTPException(403)
    return user


@app.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/users", dependencies=[Depends(get_reader)], response_model=Users)
def read_users(session: SessionDep, skip: int = 0, limit: int = 100) -> Any:
    count = session.scalar(select(func.count()).select_from(User))
    users = session.scalars(select(User).offset(skip).limit(limit)).all()
    return {"data": users, "count": count}


@app.post("/users", dependencies=[Depends(get_reader)], response_model=UserRead, status_code=201)
def create_user(*, session: SessionDep, data: UserCreate) -> Any:
    if session.scalar(select(User).where(User.email == data.email)):
        raise HTTPException(400)
    user = User(
        username=data.username, email=data.email, password=hashed(data.password), is_active=True
    )
    session.add(user)
    session.commit()
    session.refresh(user)
    return user


@app.get("/users/{user_id}", response_model=UserRead)
def read_user(user_id: int, session: SessionDep, current: CurrentUser) -> Any:
    user = session.get(User, user_id)
    if user == current:
        return user
    if not may(current, "users:read"):
        raise HTTPException(403)
    if user is None:
        raise HTTPException(404)
    return user


@asynccontextmanager
async def opened(_: Path, database: Path) -> AsyncIterator[tuple[App, Requests]]:
    state["engine"] = create_engine(f"sqlite:///{database}")
    token = jwt.encode({"sub": "1", "exp": time.time() + 86400}, KEY, ALGORITHM)
    yield (
        app,
        Requests(
            token=token,
            user=lambda n: f"/users/{n}",
            page=lambda n: f"/users?skip={n}&limit=50",
            create="/users",
            stamp=time.time_ns(),
        ),
    )
    state["engine"].dispose()
