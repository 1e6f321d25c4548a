"""Short reads run on the event loop, and nothing else keeps it."""

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, TextClause, event, insert, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.util import greenlet_spawn

from app.core import sqlite, sqlite_driver
from app.core.database import Database
from app.core.sqlite_driver import SQLiteConnection
from app.models.user import Permission
from tests.conftest import MakeSettings

Found = TypeVar("Found")
INSERT = "INSERT INTO permissions (name, description)"
# A long statement, about one second on a slow machine. The number is the answer.
COUNT = 3_000_000
SLOW = f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT}) "
SLOW_COUNT = text(SLOW + "SELECT count(*) FROM n")
# It sorts without a step that could be interrupted between two looks at the clock.
SLOW_SORT = text(SLOW + "SELECT i FROM n ORDER BY -i LIMIT 1")


@pytest.fixture(autouse=True)
def only_sqlite(database: Path) -> Iterator[None]:
    yield
    sqlite_driver._slow_statements.clear()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was called in a thread."""
    found: list[object] = []
    run_in_thread = SQLiteConnection.run_in_thread

    def counted(self: SQLiteConnection, call: Callable[[], object]) -> object:
        found.append(call)
        return run_in_thread(self, call)

    monkeypatch.setattr(SQLiteConnection, "run_in_thread", counted)
    return found


def run(make_settings: MakeSettings, work: Callable[[Database], Awaitable[Found]]) -> Found:
    async def in_database() -> Found:
        async with Database(make_settings()) as database:
            return await work(database)

    return asyncio.run(in_database())


TRIGGER = """
CREATE TRIGGER counted AFTER INSERT ON permissions
BEGIN UPDATE permissions SET description = 'old' WHERE id < new.id; END
"""


async def longest_pause(work: Awaitable[object]) -> float:
    """The longest time, in seconds, in which nothing else could run."""
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            longest, last = max(longest, time.perf_counter() - last), time.perf_counter()

    looking = asyncio.ensure_future(look())
    await work
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking
    return longest


async def answer(database: Database, statement: TextClause) -> object:
    async with database.readers() as session:
        return await session.scalar(statement)


@pytest.mark.parametrize(
    ("statement", "parameters", "taken"),
    [
        ("SELECT count(*) FROM permissions", {}, 0),
        # It compares one long text without looking at the clock.
        ("SELECT count(*) FROM permissions WHERE name LIKE :a", {"a": "%one%"}, 1),
        ("SELECT count(*) FROM permissions WHERE name not like :a", {"a": "%one%"}, 1),
        ("SELECT count(*) FROM permissions WHERE name\nLIKE :a", {"a": "%one%"}, 1),
        (f"{INSERT} VALUES (:a, :b)", {"a": "one", "b": ""}, 0),
        (f"{INSERT} VALUES (:a, :b) ON CONFLICT (name) DO NOTHING", {"a": "one", "b": ""}, 0),
        # More rows, as many as there are:
        (f"{INSERT} VALUES (:a, :b), (:b, :a)", {"a": "one", "b": "two"}, 1),
        (f"{INSERT} VALUES (:a, :b)\n    , (:b, :a)", {"a": "one", "b": "two"}, 1),
        (f"{INSERT} VALUES (:a, :b)", [{"a": "one", "b": ""}, {"a": "two", "b": ""}], 1),
        (f"{INSERT} SELECT 'one', :a", {"a": ""}, 1),
        (f"{INSERT} VALUES (:a, :b) RETURNING (SELECT 1)", {"a": "one", "b": ""}, 1),
        ("DELETE FROM permissions WHERE id = :a", {"a": 1}, 1),
    ],
)
def test_a_change_of_any_number_of_rows_and_each_commit_takes_a_turn_of_a_thread(
    make_settings: MakeSettings,
    turns: list[object],
    statement: str,
    parameters: Any,
    taken: int,
) -> None:
    async def work(database: Database) -> tuple[int, int]:
        async with database.writers.begin() as session:
            # Those that configure the new connection come first.
            await session.scalar(text("SELECT 1"))
            turns.clear()
            await session.execute(text(statement), parameters)
            of_statement = len(turns)
        return of_statement, len(turns) - of_statement

    assert run(make_settings, work) == (taken, 1)


SPELLINGS = ["permissions", "Permissions", '"permissions"', "[permissions]", "`permissions`"]
SPELLINGS += ["main.permissions", "permissions AS p", "permissions /* all */", "permissions\n"]


@pytest.mark.parametrize("table", SPELLINGS)
def test_an_insert_with_a_trigger_takes_a_turn_of_a_thread(
    make_settings: MakeSettings, rows: Engine, turns: list[object], table: str
) -> None:
    """The trigger may change any number of rows, or tokenize a long text."""
    with rows.begin() as connection:
        connection.execute(text(TRIGGER))

    async def work(database: Database) -> int:
        async with database.writers.begin() as session:
            await session.scalar(text("SELECT 1"))
            turns.clear()
            await session.execute(
                text(f"INSERT INTO {table} (name, description) VALUES (:a, :a)"), {"a": "one"}
            )
            return len(turns)

    assert run(make_settings, work) == 1


def test_a_trigger_of_a_migration_is_noticed_while_the_app_runs(
    make_settings: MakeSettings, rows: Engine, turns: list[object]
) -> None:
    async def add(database: Database, name: str) -> int:
        async with database.writers.begin() as session:
            await session.scalar(text("SELECT 1"))
            turns.clear()
            await session.execute(text(f"{INSERT} VALUES (:a, :a)"), {"a": name})
            return len(turns)

    async def work(database: Database) -> list[int]:
        before = await add(database, "one")
        with rows.begin() as connection:
            connection.execute(text(TRIGGER))
        return [before, await add(database, "two")]

    assert run(make_settings, work) == [0, 1]


def test_a_long_text_is_inserted_in_a_thread(database: Path, turns: list[object]) -> None:
    """To copy it takes time, and it cannot be interrupted."""

    def work() -> list[int]:
        connection = SQLiteConnection(
            database, read_only=False, isolation_level=None, check_same_thread=False
        )
        connection.cursor().execute("CREATE TABLE texts (text)")
        connection.cursor().execute("BEGIN")
        taken: list[int] = []
        for value in ("short", "x" * 1_000_001, b"x" * 1_000_001):
            turns.clear()
            connection.cursor().execute("INSERT INTO texts (text) VALUES (?)", (value,))
            taken.append(len(turns))
        connection.close()
        return taken

    assert asyncio.run(greenlet_spawn(work)) == [0, 1, 1]


def test_an_insert_that_commits_by_itself_waits_for_the_disk_in_a_thread(
    database: Path, turns: list[object]
) -> None:
    def work() -> list[int]:
        connection = SQLiteConnection(
            database, read_only=False, isolation_level=None, check_same_thread=False
        )
        taken: list[int] = []
        for statement in (f"{INSERT} VALUES (?, ?)", "BEGIN", f"{INSERT} VALUES (?, ?)"):
            turns.clear()
            values = (f"permission {len(taken)}", "") if "?" in statement else ()
            connection.cursor().execute(statement, values)
            taken.append(len(turns))
        connection.close()
        return taken

    assert asyncio.run(greenlet_spawn(work)) == [1, 0, 0]


def test_a_read_takes_no_turn_of_a_thread(make_settings: MakeSettings, turns: list[object]) -> None:
    run(make_settings, lambda database: answer(database, text("SELECT 1")))

    assert turns == []


def test_statements_leave_nothing_behind_in_their_connection(make_settings: MakeSettings) -> None:
    """A connection lives as long as its worker, which would grow with each request."""

    async def use(database: Database, times: int) -> int:
        for _ in range(times):
            await answer(database, text("SELECT 1"))
            async with database.writers.begin() as session:
                await session.execute(text("UPDATE permissions SET name = name"))
        gc.collect()
        return len(gc.get_objects())

    async def work(database: Database) -> int:
        before = await use(database, 300)
        return await use(database, 600) - before

    # The connection itself forgets closed cursors only now and then.
    assert run(make_settings, work) < 500


def test_the_connection_of_a_session_reads_as_the_session_does(
    make_settings: MakeSettings,
) -> None:
    """SQLAlchemy rejects drivers that answer a connection without waiting."""

    async def work(database: Database) -> object:
        async with database.readers() as session:
            connection = await session.connection()
            return await connection.scalar(text("SELECT 7"))

    assert run(make_settings, work) == 7


@pytest.mark.parametrize(("statement", "right"), [(SLOW_COUNT, COUNT), (SLOW_SORT, COUNT)])
def test_a_slow_read_lets_others_run_and_answers_in_full(
    make_settings: MakeSettings, statement: TextClause, right: int
) -> None:
    async def work(database: Database) -> float:
        async def read() -> None:
            assert await answer(database, statement) == right

        return await longest_pause(read())

    started_at = time.perf_counter()
    pause = run(make_settings, work)

    assert pause < (time.perf_counter() - started_at) / 3


def test_a_statement_that_was_slow_starts_in_a_thread_the_next_time(
    make_settings: MakeSettings, turns: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(database: Database) -> int:
        assert await answer(database, SLOW_COUNT) == COUNT
        turns.clear()
        # On the event loop, nothing would interrupt it any more.
        monkeypatch.setattr(sqlite_driver, "_LOOP_SECONDS", 1000)
        assert await answer(database, SLOW_COUNT) == COUNT
        return len(turns)

    assert run(make_settings, work) == 1


def test_a_slow_read_that_cannot_be_interrupted_starts_in_a_thread_the_next_time(
    make_settings: MakeSettings, turns: list[object]
) -> None:
    statement = text("SELECT instr(replace(hex(zeroblob(30000000)), '0', 'x'), 'xy')")

    async def work(database: Database) -> list[int]:
        taken = []
        for _ in "ab":
            turns.clear()
            assert await answer(database, statement) == 0
            taken.append(len(turns))
        return taken

    assert run(make_settings, work) == [0, 1]


def test_an_insert_that_was_slow_starts_in_a_thread_the_next_time(
    make_settings: MakeSettings, rows: Engine, turns: list[object]
) -> None:
    """An upsert, for example, compares each row that refers to it, if no index has them."""
    slow = "instr(replace(hex(zeroblob(30000000)), '0', 'x'), 'xy')"
    with rows.begin() as connection:
        connection.execute(text(f"CREATE TABLE slow (name, CHECK ({slow} = 0))"))

    async def work(database: Database) -> list[int]:
        async with database.writers.begin() as session:
            await session.scalar(text("SELECT 1"))
            taken = []
            for _ in "ab":
                turns.clear()
                await session.execute(text("INSERT INTO slow (name) VALUES (:a)"), {"a": "one"})
                taken.append(len(turns))
            return taken

    assert run(make_settings, work) == [0, 1]


def test_a_read_in_a_thread_does_not_look_at_the_clock(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look would wait for the event loop, which has Python's lock."""
    looks = 0

    def look() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic()

    async def work(database: Database) -> int:
        assert await answer(database, SLOW_COUNT) == COUNT
        monkeypatch.setattr(sqlite_driver, "monotonic", look)
        assert await answer(database, SLOW_COUNT) == COUNT
        return looks

    assert run(make_settings, work) < 100


def test_statements_of_one_connection_at_the_same_time_wait_for_each_other(
    make_settings: MakeSettings,
) -> None:
    """Otherwise a read would end a change in the thread, and with it the transaction."""
    change = text(f"UPDATE permissions SET description = ({SLOW}SELECT count(*) FROM n)")

    async def work(database: Database) -> tuple[object, object]:
        async with database.writers.begin() as session:
            await session.execute(insert(Permission).values(name="a", description=""))
            connection = await session.connection()

            async def read() -> object:
                await asyncio.sleep(0.05)
                return await connection.scalar(text("SELECT 7"))

            _, found = await asyncio.gather(connection.execute(change), read())
        stored = text("SELECT description FROM permissions WHERE name = 'a'")
        return found, await answer(database, stored)

    assert run(make_settings, work) == (7, str(COUNT))


def test_a_full_text_search_runs_in_a_thread_at_once(
    make_settings: MakeSettings, database: Path, turns: list[object]
) -> None:
    """SQLite would not look at the clock while it compares rows."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE VIRTUAL TABLE texts USING fts5(text, tokenize='trigram')")
        connection.execute("INSERT INTO texts VALUES ('abcdef')")

    async def work(opened: Database) -> tuple[object, int]:
        await answer(opened, text("SELECT 1"))
        turns.clear()
        found = await answer(opened, text("SELECT text FROM texts WHERE texts MATCH 'cde'"))
        return found, len(turns)

    assert run(make_settings, work) == ("abcdef", 1)


def test_a_slow_read_keeps_the_snapshot_of_its_transaction(
    make_settings: MakeSettings, database: Path
) -> None:
    async def work(opened: Database) -> tuple[object, object]:
        count = text("SELECT count(*) FROM permissions")
        async with opened.readers() as session:
            before = await session.scalar(count)
            with closing(sqlite3.connect(database)) as other, other:
                other.execute("INSERT INTO permissions (name, description) VALUES ('late', '')")
            assert await session.scalar(SLOW_COUNT) == COUNT
            return before, await session.scalar(count)

    before, after = run(make_settings, work)

    assert before == after


def test_a_slow_read_keeps_what_its_transaction_wrote(
    make_settings: MakeSettings, turns: list[object]
) -> None:
    """An interrupted change would roll the transaction back."""
    slow = text(f"SELECT * FROM ({SLOW_COUNT})")

    async def work(opened: Database) -> tuple[int, object]:
        async with opened.writers.begin() as session:
            await session.execute(insert(Permission).values(name="a", description=""))
            turns.clear()
            assert await session.scalar(slow) == COUNT
            taken = len(turns)
        return taken, await answer(
            opened, text("SELECT count(*) FROM permissions WHERE name = 'a'")
        )

    assert run(make_settings, work) == (1, 1)


def test_a_writer_that_has_to_wait_for_the_lock_waits_in_a_thread(
    make_settings: MakeSettings, database: Path
) -> None:
    async def write(opened: Database) -> None:
        async with opened.writers.begin() as session:
            await session.execute(insert(Permission).values(name="a", description=""))

    async def work(opened: Database) -> float:
        await write(opened)
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("DELETE FROM permissions WHERE name = 'a'")
            writing = asyncio.ensure_future(write(opened))
            pause = await longest_pause(asyncio.sleep(0.5))
            other.execute("COMMIT")
        await writing
        return pause

    assert run(make_settings, work) < 0.4


def test_a_reader_that_has_to_wait_for_a_lock_waits_in_a_thread(
    make_settings: MakeSettings, database: Path
) -> None:
    is_locked, is_over = threading.Event(), threading.Event()

    def lock() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            other.execute("INSERT INTO permissions (name, description) VALUES ('mine', '')")
            is_locked.set()
            is_over.wait(30)
            other.execute("COMMIT")

    async def work(opened: Database) -> tuple[float, object]:
        thread = threading.Thread(target=lock)
        thread.start()
        await asyncio.to_thread(is_locked.wait, 30)
        reading = asyncio.ensure_future(answer(opened, text("SELECT count(*) FROM permissions")))
        pause = await longest_pause(asyncio.sleep(0.5))
        is_over.set()
        return pause, await reading

    pause, found = run(make_settings, work)

    assert pause < 0.4
    assert isinstance(found, int)


def test_a_slow_read_that_is_cancelled_ends_at_once_and_its_connection_is_replaced(
    make_settings: MakeSettings,
) -> None:
    endless = text(SLOW.replace(str(COUNT), str(10**12)) + "SELECT count(*) FROM n")

    async def work(database: Database) -> object:
        for _ in range(20):
            reading = asyncio.ensure_future(answer(database, endless))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        return await answer(database, text("SELECT 1"))

    threads = threading.active_count()
    started_at = time.perf_counter()

    assert run(make_settings, work) == 1
    # Otherwise the twenty would go on for hours.
    assert time.perf_counter() - started_at < 30
    assert threading.active_count() <= threads + 1


def test_what_is_left_of_a_failed_statement_never_waits_for_a_writer(
    make_settings: MakeSettings, database: Path
) -> None:
    """Freeing it would wait for the connection, in whichever thread and event loop that happens."""
    twice = text("INSERT INTO permissions (name, description) VALUES ('a', ''), ('a', '')")

    async def write(opened: Database) -> None:
        async with opened.writers.begin() as session:
            await session.execute(text("DELETE FROM permissions WHERE name = 'a'"))

    async def work(opened: Database) -> float:
        kept: list[Exception] = []
        try:
            async with opened.writers.begin() as session:
                await session.execute(twice)
        except IntegrityError as error:
            kept.append(error)
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.ensure_future(write(opened))
            await asyncio.sleep(0.3)
            started_at = time.perf_counter()
            kept.clear()
            gc.collect()
            took = time.perf_counter() - started_at
            other.execute("COMMIT")
            await writing
            return took

    assert run(make_settings, work) < 1


def test_a_stream_reads_rows_as_they_are_asked_for(make_settings: MakeSettings) -> None:
    endless = text(SLOW.replace(str(COUNT), str(10**12)) + "SELECT i FROM n")

    async def work(database: Database) -> list[int]:
        async with database.readers() as session:
            rows = await session.stream_scalars(endless)
            found = [await anext(rows) for _ in range(1000)]
            await rows.close()
            return found

    assert run(make_settings, work) == list(range(1, 1001))


def test_an_error_in_the_thread_is_the_same_as_without_one(make_settings: MakeSettings) -> None:
    async def work(database: Database) -> None:
        async with database.writers.begin() as session:
            statement = insert(Permission).values(name="twice", description="")
            await session.execute(statement)
            await session.execute(statement)

    with pytest.raises(IntegrityError, match="UNIQUE constraint failed"):
        run(make_settings, work)


def test_a_listener_can_use_a_cursor_as_with_other_drivers(make_settings: MakeSettings) -> None:
    found: list[object] = []

    async def work(database: Database) -> None:
        engine = database.engines["reading"]

        @event.listens_for(engine, "connect")
        def read(connection: Any, _: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 UNION SELECT 2")
                found.extend(cursor)

        await answer(database, text("SELECT 1"))

    run(make_settings, work)

    assert found == [(1,), (2,)]


def test_a_connection_with_a_thread_can_be_closed_twice(database: Path) -> None:
    def work() -> None:
        connection = SQLiteConnection(database, read_only=False, check_same_thread=False)
        connection.cursor().execute("UPDATE permissions SET name = name")
        connection.close()
        connection.close()
        connection.close(waits=False)

    asyncio.run(greenlet_spawn(work))


async def suspend() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (sqlite_driver._Cursor, "_async_soft_close", None),
        (sqlite_driver, "_awaited", suspend),
    ],
    ids=["other names", "waits"],
)
def test_with_a_sqlalchemy_that_it_does_not_fit_aiosqlite_takes_its_place(
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    value: object,
) -> None:
    async def read_and_write(database: Database) -> list[int]:
        count = text("SELECT count(*) FROM permissions WHERE name LIKE 'shelf%'")
        found = []
        for shelf, fails in (("shelf 1", False), ("shelf 2", True)):
            with suppress(ZeroDivisionError):
                async with database.writers.begin() as session:
                    session.add(Permission(name=shelf, description=shelf))
                    await session.flush()
                    _ = 1 / (not fails)
            async with database.readers.begin() as session:
                found.append((await session.scalars(count)).one())
                with pytest.raises(OperationalError, match="readonly"):
                    await session.execute(text(f"{INSERT} VALUES ('shelf 3', '')"))
        assert {engine.dialect.driver for engine in database.engines.values()} == {"aiosqlite"}
        return found

    monkeypatch.setattr(owner, name, value)
    sqlite._driver_fits.cache_clear()
    try:
        assert run(make_settings, read_and_write) == [1, 1]
    finally:
        sqlite._driver_fits.cache_clear()

    assert [r.levelname for r in caplog.records if "sqlite_driver.py" in r.message] == ["WARNING"]


def test_no_installed_version_needs_aiosqlite(make_settings: MakeSettings) -> None:
    async def drivers(database: Database) -> set[str]:
        return {engine.dialect.driver for engine in database.engines.values()}

    assert run(make_settings, drivers) == {"loop"}
