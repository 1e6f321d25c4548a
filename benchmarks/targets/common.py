"""What the replicas of other templates share: the mapped table, its rows and the schemas."""

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from pydantic import BaseModel, ConfigDict, EmailStr
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Long enough for HS256. Every replica signs JSON Web Tokens.
KEY = "0" * 32
ALGORITHM = "HS256"
# The replica runs behind uvicorn, which imports it.
DATABASE = os.environ.get("DATABASE", "")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    username: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    is_deleted: Mapped[bool] = mapped_column(default=False, index=True)
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


class WithdrawnToken(Base):
    __tablename__ = "withdrawn_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(unique=True)


# All check an address with EmailStr, in what they read as in what they answer.
class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    username: str
    email: EmailStr
    is_active: bool
    is_superuser: bool
    created_at: datetime


class UserCreate(BaseModel):
    username: str
    email: EmailStr
    password: str


def hashed(_: str) -> str:
    """Hashing is left out everywhere: it would be all that is measured."""
    return "!"


def fill(file: Path, users: int) -> None:
    """A database of a replica. The administrator is the first user."""
    engine = create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            "id": uuid.UUID(int=number),
            "username": f"user{number}",
            "email": f"user-{number}@example.com",
            "password": "!",
            "is_superuser": number == 1,
            "created_at": first + timedelta(seconds=number),
        }
        for number in range(1, users + 1)
    ]
    with engine.begin() as connection:
        connection.execute(insert(User), rows)
    engine.dispose()


def token(subject: str) -> str:
    now = datetime.now(UTC)
    payload = {"sub": subject, "iat": now, "exp": now + timedelta(days=1)}
    return jwt.encode(payload, KEY, ALGORITHM)
