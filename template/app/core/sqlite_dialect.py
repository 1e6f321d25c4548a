"""SQLAlchemy's own dialect for `sqlite3`, with the connections of `sqlite_driver`."""

import sqlite3
from functools import partial
from typing import Any, Self

from sqlalchemy import URL
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool

from app.core.sqlite_driver import SQLiteConnection

DRIVER_NAME = "sqlite+loop"


class _StreamingCursor(sqlite3.Cursor):
    """For `session.stream(...)`: fetches rows when they are asked for, in the thread."""

    def __init__(self, connection: SQLiteConnection) -> None:
        super().__init__(connection)
        self._in_thread = connection.run_in_thread
        self._run_patiently = connection.run_patiently

    def execute(self, statement: str, parameters: Any = ()) -> Self:
        self._run_patiently(partial(super().execute, statement, parameters))
        return self

    def fetchone(self) -> Any:
        return self._in_thread(super().fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._in_thread(partial(super().fetchmany, size or self.arraysize))

    def fetchall(self) -> Any:
        return self._in_thread(super().fetchall)

    def close(self) -> None:
        self._in_thread(super().close)


class _ExecutionContext(SQLiteExecutionContext):
    def create_server_side_cursor(self) -> Any:
        return self._dbapi_connection.cursor(_StreamingCursor)


class Dialect(SQLiteDialect_pysqlite):
    driver = "loop"
    is_async = True
    has_terminate = True
    supports_statement_cache = True
    supports_server_side_cursors = True
    execution_ctx_cls = _ExecutionContext

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        return AsyncAdaptedQueuePool

    def connect(self, *arguments: Any, **options: Any) -> Any:
        return SQLiteConnection(*arguments, **options)

    def get_driver_connection(self, connection: Any) -> Any:
        return connection

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.close(waits=False)


registry.register(DRIVER_NAME.replace("+", "."), __name__, Dialect.__name__)
