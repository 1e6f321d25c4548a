"""A replica of what full-stack-fastapi-template's generated code does.

After github.com/fastapi/full-stack-fastapi-template, backend/app/api/deps.py and routes/users.py:
functions in a thread pool, a synchronous session, a JWT and the user by its id; a list with its
count, sorted by date, with OFFSET, whose rows are validated before FastAPI does it again; a look
for a duplicate before a create, and a refresh after its commit. Its SQLModel is the same ORM
underneath.
"""

from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

import jwt
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from benchmarks.targets.common import (
    ALGORITHM,
    DATABASE,
    KEY,
    User,
    UserCreate,
    UserRead,
    hashed,
)

login_router = APIRouter()
users_router = APIRouter(prefix="/users")
utils_router = APIRouter(prefix="/utils")
bearer = OAuth2PasswordBearer("/login")
engine = create_engine(f"sqlite:///{DATABASE}")


class Users(BaseModel):
    data: list[UserRead]
    count: int


class TokenPayload(BaseModel):
    sub: str | None = None


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


def get_user(session: SessionDep, token: Annotated[str, Depends(bearer)]) -> User:
    payload = TokenPayload.model_validate(jwt.decode(token, KEY, [ALGORITHM]))
    user = session.get(User, UUID(payload.sub))
    if user is None or not user.is_active:
        raise HTTPException(403)
    return user


CurrentUser = Annotated[User, Depends(get_user)]


def get_superuser(user: CurrentUser) -> User:
    if not user.is_superuser:
        raise HTTPException(403)
    return user


@users_router.get("/", dependencies=[Depends(get_superuser)], response_model=Users)
def read_users(session: SessionDep, skip: int = 0, limit: int = 100) -> Any:
    count = session.scalar(select(func.count()).select_from(User))
    newest_first = select(User).order_by(User.created_at.desc())
    users = session.scalars(newest_first.offset(skip).limit(limit)).all()
    return Users(data=[UserRead.model_validate(user) for user in users], count=count or 0)


@users_router.post("/", dependencies=[Depends(get_superuser)], response_model=UserRead)
def create_user(*, session: SessionDep, data: UserCreate) -> Any:
    if session.scalar(select(User).where(User.email == data.email)):
        raise HTTPException(400)
    user = User(username=data.username, email=data.email, password=hashed(data.password))
    session.add(user)
    session.commit()
    session.refresh(user)
    return user


@users_router.get("/me", response_model=UserRead)
def read_me(current: CurrentUser) -> Any:
    return current


async def not_measured() -> None:
    """The template's other routes: FastAPI compares a request with those before its own."""


for path in ("access-token", "test-token", "recover", "reset", "recover-html"):
    login_router.add_api_route(f"/login/{path}", not_measured, methods=["POST"])
for path in ("a", "b", "c", "d", "e", "f", "g"):
    users_router.add_api_route(f"/other-{path}", not_measured, methods=["PATCH"])
utils_router.add_api_route("/test-email/", not_measured, methods=["POST"])


@utils_router.get("/health-check/")
async def health_check() -> bool:
    return True


api_router = APIRouter()
api_router.include_router(login_router)
api_router.include_router(users_router)
api_router.include_router(utils_router)
app = FastAPI()
app.add_middleware(CORSMiddleware, allow_origins=["http://localhost:5173"])
app.include_router(api_router, prefix="/api/v1")
