"""The transaction of a request. Your code flushes; only `get_session` commits."""

from collections.abc import AsyncIterator
from contextlib import aclosing
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
    sessions = database.readers if _only_reads(connection) else database.writers
    # `async with sessions()` would close the session in another task, to shield that from a
    # cancellation. Here, `session.begin()` has already ended the transaction.
    async with aclosing(sessions()) as session, session.begin():
        yield session


def _only_reads(connection: HTTPConnection) -> bool:
    return connection.scope.get("method", "GET") in READ_METHODS


# Function scope commits before the response is sent: a failed commit is an error, not a 200.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


async def get_replica_session(
    connection: HTTPConnection, session: SessionDep
) -> AsyncIterator[AsyncSession]:
    """For a long read in a GET request. It sees all that was committed before the request.

    It is `session` in other requests, without DATABASE_REPLICA_URL, and if the standby is down or
    behind.
    """
    database: Database = connection.app.state.database
    if not _only_reads(connection):
        yield session
        return
    async with database.replica_session(session) as replica:
        yield replica


ReplicaSessionDep = Annotated[AsyncSession, Depends(get_replica_session, scope="function")]
