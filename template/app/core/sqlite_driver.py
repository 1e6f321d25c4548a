"""How the app calls SQLite: what is short on the event loop, everything else in a thread.

With write-ahead logging, a reader waits for no writer. Most reads take less time than handing them
to a thread. One that takes longer is interrupted, and runs again in a thread. If a change were
interrupted, SQLite would roll back its transaction. So a change runs in a thread, unless it inserts
a single row without a trigger, and so does a commit, which waits for the disk.
"""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from functools import lru_cache, partial
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, Self

from sqlalchemy.util import await_only

from app.core.telemetry import waiting

# How long a read may keep everybody else waiting.
_LOOP_SECONDS = 0.01
# One that could not be interrupted, such as a count(*), may also have waited for the processor.
_GRACE_SECONDS = 0.04
# For so long, a statement that was too slow runs in a thread at once.
_SLOW_SECONDS = 60.0
_MAX_SLOW_STATEMENTS = 1_000
# SQLite looks at the clock after so many of its instructions: about every 0.1 ms.
_INSTRUCTIONS = 2_000
_BUSY_MILLISECONDS = 5_000
# A longer text starts in a thread: to insert 10 MB takes 36 ms.
_MAX_LENGTH = 1_000_000
# FTS5 compares many rows without looking at the clock, and LIKE a long text.
_SEARCHES = re.compile(r"\s(?:MATCH|LIKE|GLOB)\s", re.I)
# BEGIN IMMEDIATE takes a lock, but only if no one has it.
_CHANGES_NOTHING = re.compile("SELECT |BEGIN")
_INSERTS_ONE_ROW = re.compile(
    r"INSERT INTO \"?(?P<table>\w+)\"? \([^()]+\) VALUES \([?, ]+\)(?!\s*,|.*(?i:SELECT))", re.S
)
# Triggers run with the INSERT, and one into a virtual table is work for its module.
_DOES_MORE = """SELECT 1 FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE
    AND (type = 'trigger' OR sql LIKE 'CREATE VIRTUAL%')"""

# Text of a statement → when it may be tried on the event loop again.
_slow_statements: dict[str, float] = {}


class SQLiteConnection(sqlite3.Connection):
    """A connection whose calls never block the event loop for long."""

    def __init__(self, *arguments: Any, read_only: bool, **options: Any) -> None:
        # A statement on the event loop must not wait for a lock.
        super().__init__(*arguments, **{**options, "timeout": 0})
        self._read_only = read_only
        self._deadline = inf
        # Table and version of the schema → whether an INSERT does nothing else.
        self._simple_tables: dict[tuple[str, tuple[int]], bool] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._calls_in_thread = 0
        self._watch()

    def _watch(self) -> None:
        self.set_progress_handler(lambda: monotonic() > self._deadline, _INSTRUCTIONS)

    def cursor(self, factory: Any = None) -> Any:
        return (factory or _Cursor)(self)

    def run(self, statement: str, call: Callable[[], Any]) -> Any:
        if seconds := self._seconds_on_loop(statement):
            started_at = monotonic()
            self._deadline = started_at + seconds
            try:
                result = call()
                # AsyncConnection rejects a driver that awaits nothing.
                await_only(_awaited())
                return result
            except sqlite3.OperationalError as error:
                # Missing if the error is of Python's own module, for text that is not UTF-8.
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_INTERRUPT:
                    _remember_as_slow(statement)
                elif code != sqlite3.SQLITE_BUSY:  # Another process or thread has a lock.
                    raise
            finally:
                self._deadline = inf
                if monotonic() > started_at + _LOOP_SECONDS + _GRACE_SECONDS:
                    _remember_as_slow(statement)
        return self.run_patiently(call)

    def _seconds_on_loop(self, statement: str) -> float:
        """How long it may run there; 0 if it starts in a thread."""
        # A connection runs one statement at a time.
        if self._calls_in_thread or _slow_statements.get(statement, 0) > monotonic():
            return 0
        if self._read_only or _CHANGES_NOTHING.match(statement):
            return 0 if _searches(statement) else _LOOP_SECONDS
        # Outside of a transaction, it would wait for the disk, too.
        return inf if self.in_transaction and self._inserts_one_row(statement) else 0

    def _inserts_one_row(self, statement: str) -> bool:
        if (found := _INSERTS_ONE_ROW.match(statement)) is None:
            return False
        with closing(super().cursor()) as cursor:
            key = found["table"], cursor.execute("PRAGMA schema_version").fetchone()
            if key not in self._simple_tables:
                self._simple_tables[key] = not cursor.execute(_DOES_MORE, key[:1]).fetchone()
        return self._simple_tables[key]

    def run_patiently(self, call: Callable[[], Any]) -> Any:
        """Call it in the thread, where it may wait for a lock."""
        return self.run_in_thread(partial(self._wait_for_locks, call))

    def _wait_for_locks(self, call: Callable[[], Any]) -> Any:
        # Each look at the clock would wait for the event loop, which has Python's lock.
        self.set_progress_handler(None, 0)
        super().cursor().execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        try:
            return call()
        finally:
            super().cursor().execute("PRAGMA busy_timeout = 0")
            self._watch()

    def run_in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it in the thread of this connection, while the event loop goes on."""
        self._thread = self._thread or ThreadPoolExecutor(1, "sqlite")
        return await_only(self._wait_for(self._thread, call))

    async def _wait_for(self, thread: ThreadPoolExecutor, call: Callable[[], Any]) -> Any:
        self._calls_in_thread += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, call)
        except asyncio.CancelledError:
            # The pool drops this connection now. The thread closes it after the statement.
            with suppress(sqlite3.ProgrammingError):  # It is closed already.
                self.interrupt()
            raise
        finally:
            self._calls_in_thread -= 1

    def begin(self) -> None:
        """Begin a transaction. If it can write, it takes the lock at once."""
        statement = "BEGIN" if self._read_only else "BEGIN IMMEDIATE"
        with nullcontext() if self._read_only else waiting("sqlite.lock"):
            self.cursor().execute(statement)

    def commit(self) -> None:
        self.run("COMMIT", super().commit)

    def rollback(self) -> None:
        # The pool sends a rollback after a commit, too.
        if self.in_transaction:
            self.run("ROLLBACK", super().rollback)

    def close(self, *, waits: bool = True) -> None:
        """Close it, perhaps without waiting for its thread, which may still be busy."""
        close = super().close
        thread, self._thread = self._thread, None
        if thread is None:
            close()
        elif waits:
            await_only(self._wait_for(thread, close))
            thread.shutdown(wait=False)
        else:
            thread.submit(close)
            thread.shutdown(wait=False)


async def _awaited() -> None:
    """Done at once."""


@lru_cache(maxsize=_MAX_SLOW_STATEMENTS)
def _searches(statement: str) -> bool:
    return _SEARCHES.search(statement) is not None


def _remember_as_slow(statement: str) -> None:
    if len(_slow_statements) == _MAX_SLOW_STATEMENTS:
        _slow_statements.clear()
    _slow_statements[statement] = monotonic() + _SLOW_SECONDS


class _Cursor:
    """Executes a statement, fetches its rows and closes it in one call.

    An open one could block the thread that frees it. Only `Connection.cursor()` forgets closed ones.
    """

    arraysize = 1
    description: Any = None
    rowcount = -1
    lastrowid: int | None = None

    def __init__(self, connection: SQLiteConnection) -> None:
        self._connection = connection
        self._rows: Iterator[Any] = iter(())

    def execute(self, statement: str, parameters: Any = ()) -> None:
        call = partial(self._execute, statement, parameters)
        if any(isinstance(value, str | bytes) and len(value) > _MAX_LENGTH for value in parameters):
            self._connection.run_patiently(call)
        else:
            self._connection.run(statement, call)

    def executemany(self, statement: str, parameters: Iterable[Any]) -> None:
        self._connection.run_patiently(partial(self._execute, statement, parameters, many=True))

    def _execute(self, statement: str, parameters: Any, *, many: bool = False) -> None:
        with closing(sqlite3.Connection.cursor(self._connection)) as cursor:
            (cursor.executemany if many else cursor.execute)(statement, parameters)
            self._rows = iter(cursor.fetchall())
            self.description = cursor.description
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return list(islice(self._rows, size or self.arraysize))

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It is closed already."""

    def close(self) -> None:
        """It is closed already."""

    async def _async_soft_close(self) -> None:
        """SQLAlchemy awaits this after each statement, in place of `close`."""
