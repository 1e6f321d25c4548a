"""The transaction of a request. Routes and services flush; only `get_session` commits."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import READ_METHODS, Database


async def get_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """One transaction: committed on success, rolled back on any exception.

    It begins with the first statement, so work before that holds no lock. A GET or HEAD
    request and a WebSocket can only read.
    """
    database: Database = connection.app.state.database
    reads = connection.scope.get("method", "GET") in READ_METHODS
    sessions = database.readers if reads else database.writers
    async with sessions.begin() as session:
        yield session


# Function scope commits before the response is sent: a failed commit is an error, not a 200.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
