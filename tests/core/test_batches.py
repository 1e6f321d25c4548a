"""A batch replaces a table of SQLite. All that belongs to the table must be there afterwards."""

import io
import sqlite3
import textwrap
from contextlib import closing

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy.exc import IntegrityError

from tests.core.revisions import Revisions

BOOKS = "CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, pages INTEGER)"
LOG = "CREATE TABLE log (title TEXT)"
TRIGGER = """
CREATE TRIGGER log_books AFTER INSERT ON books
BEGIN INSERT INTO log VALUES (new.title); END
"""
BATCH = """
with op.batch_alter_table("books") as batch_op:
    batch_op.alter_column("pages", server_default="0")
"""
DROP_TITLE = """
with op.batch_alter_table("books") as batch_op:
    batch_op.drop_column("title")
"""
RENAME_TITLE = """
with op.batch_alter_table("books") as batch_op:
    batch_op.alter_column("title", new_column_name="name")
"""
RENAME_AND_REPLACE = f"{RENAME_TITLE}    batch_op.alter_column('pages', server_default='0')\n"


def create(revisions: Revisions, *statements: str) -> None:
    revisions.migrate("\n".join(f"op.execute({statement!r})" for statement in statements))


def names(revisions: Revisions, kind: str) -> list[str]:
    query = f"SELECT name FROM sqlite_master WHERE type = '{kind}' AND sql IS NOT NULL"
    return [name for (name,) in revisions.run(f"{query} ORDER BY name")]


@pytest.mark.parametrize(
    "index",
    [
        "CREATE UNIQUE INDEX kept ON books (lower(title))",
        "CREATE UNIQUE INDEX kept ON books (title COLLATE NOCASE)",
        "CREATE INDEX kept ON books (title DESC, pages)",
        "CREATE UNIQUE INDEX kept ON books (title) WHERE pages > 3",
        "CREATE INDEX kept ON books (title, length(title)) WHERE title <> 'a) WHERE (b'",
    ],
)
def test_r39_an_index_survives_a_batch_as_it_was_written(on_sqlite: Revisions, index: str) -> None:
    create(on_sqlite, BOOKS, index)

    on_sqlite.migrate(BATCH)

    assert on_sqlite.statement("kept") == index


def test_a_unique_index_on_an_expression_still_holds_after_a_batch(on_sqlite: Revisions) -> None:
    create(on_sqlite, BOOKS, "CREATE UNIQUE INDEX u ON books (lower(title))")
    on_sqlite.migrate(BATCH)

    with pytest.raises(IntegrityError):
        on_sqlite.run("INSERT INTO books (title) VALUES ('Bic'), ('BIC')")


def test_r39_triggers_survive_a_batch(on_sqlite: Revisions) -> None:
    backwards = """
    CREATE TRIGGER count_log AFTER INSERT ON log
    BEGIN UPDATE books SET pages = 7 WHERE title = new.title; END
    """
    create(on_sqlite, BOOKS, LOG, TRIGGER, backwards)
    on_sqlite.migrate(BATCH)

    on_sqlite.run("INSERT INTO books (title, pages) VALUES ('Emma', 1)")

    assert on_sqlite.run("SELECT title, pages FROM books") == [("Emma", 7)]


def test_r39_a_view_and_its_trigger_survive_a_batch(on_sqlite: Revisions) -> None:
    create(
        on_sqlite,
        BOOKS,
        "CREATE VIEW titles AS SELECT title FROM books",
        "CREATE TRIGGER add_title INSTEAD OF INSERT ON titles"
        " BEGIN INSERT INTO books (title) VALUES (new.title); END",
    )
    on_sqlite.migrate(BATCH)

    on_sqlite.run("INSERT INTO titles VALUES ('Emma')")

    assert on_sqlite.run("SELECT title FROM titles") == [("Emma",)]


def test_a_batch_never_gives_an_id_twice(on_sqlite: Revisions) -> None:
    table = "CREATE TABLE books (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, pages INTEGER)"
    create(on_sqlite, table)
    on_sqlite.run("INSERT INTO books (id) VALUES (1), (9)", "DELETE FROM books WHERE id = 9")

    on_sqlite.migrate(BATCH)

    on_sqlite.run("INSERT INTO books DEFAULT VALUES")
    assert on_sqlite.run("SELECT max(id) FROM books") == [(10,)]


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("extra TEXT COLLATE NOCASE UNIQUE", "INSERT INTO books (extra) VALUES ('a'), ('A')"),
        ("extra INTEGER CHECK (extra > 3)", "INSERT INTO books (extra) VALUES (3)"),
        (
            "extra INTEGER CONSTRAINT big CHECK (extra > 3 AND (extra <> 9))",
            "INSERT INTO books (extra) VALUES (9)",
        ),
    ],
)
def test_r39_the_rules_of_a_column_survive_a_batch(
    on_sqlite: Revisions, column: str, wrong: str
) -> None:
    create(on_sqlite, BOOKS.replace(")", f", {column})"))

    on_sqlite.migrate(BATCH)

    with pytest.raises(IntegrityError):
        on_sqlite.run(wrong)


def test_the_actions_of_foreign_keys_survive_a_batch(on_sqlite: Revisions) -> None:
    keys = (
        "author INTEGER REFERENCES authors (id) ON DELETE CASCADE, shelf INTEGER,"
        " CONSTRAINT shelf FOREIGN KEY (shelf) REFERENCES authors (id) ON DELETE SET NULL)"
    )
    create(
        on_sqlite, "CREATE TABLE authors (id INTEGER PRIMARY KEY)", BOOKS.replace(")", f", {keys}")
    )
    query = "SELECT \"from\", on_delete FROM pragma_foreign_key_list('books') ORDER BY 1"
    before = on_sqlite.run(query)

    on_sqlite.migrate(BATCH)

    assert on_sqlite.run(query) == before == [("author", "CASCADE"), ("shelf", "SET NULL")]


@pytest.mark.parametrize("option", ["STRICT", "WITHOUT ROWID"])
def test_the_options_of_a_table_survive_a_batch(on_sqlite: Revisions, option: str) -> None:
    create(on_sqlite, f"{BOOKS} {option}")

    on_sqlite.migrate(BATCH)

    assert on_sqlite.statement("books").endswith(f") {option}")


def test_a_colon_in_a_text_survives_a_batch(on_sqlite: Revisions) -> None:
    rules = """extra TEXT DEFAULT '{"a":1}' CHECK (extra <> ':b'), CHECK (title <> ':c')"""
    on_sqlite.run(BOOKS.replace(")", f", {rules})"))

    on_sqlite.migrate(BATCH)

    on_sqlite.run("INSERT INTO books (title) VALUES ('Emma')")
    assert on_sqlite.run("SELECT extra FROM books") == [('{"a":1}',)]
    for wrong in ("INSERT INTO books (extra) VALUES (':b')", "UPDATE books SET title = ':c'"):
        with pytest.raises(IntegrityError):
            on_sqlite.run(wrong)


def test_what_a_table_does_on_a_conflict_survives_a_batch(on_sqlite: Revisions) -> None:
    unique = 'CONSTRAINT u UNIQUE ("title") ON CONFLICT REPLACE'
    create(on_sqlite, BOOKS.replace(")", f", {unique})"))

    on_sqlite.migrate(BATCH)

    on_sqlite.run("INSERT INTO books (title) VALUES ('Emma'), ('Emma')")
    assert on_sqlite.run("SELECT count(*) FROM books") == [(1,)]


def test_a_generated_column_survives_a_batch(on_sqlite: Revisions) -> None:
    on_sqlite.write_models(
        "Table('books', metadata, Column('id', Integer, primary_key=True),"
        " Column('pages', Integer), Column('double', Integer, Computed('(pages + 1) * 2')))"
    )
    on_sqlite.autogenerate()
    on_sqlite.run("INSERT INTO books (pages) VALUES (3)")

    on_sqlite.migrate(BATCH)

    assert on_sqlite.run("SELECT double FROM books") == [(8,)]
    assert "double INTEGER GENERATED ALWAYS AS ((pages + 1) * 2)" in on_sqlite.statement("books")


@pytest.mark.parametrize("index", ["(title)", "(lower(title))", '("title")'])
def test_r40_a_batch_that_drops_the_column_of_an_index_is_rejected(
    on_sqlite: Revisions, index: str
) -> None:
    create(on_sqlite, BOOKS, f"CREATE INDEX i ON books {index}")

    with pytest.raises(CommandError, match=r"index i needs(.|\n)*DROP INDEX"):
        on_sqlite.migrate(DROP_TITLE)

    assert "title" in on_sqlite.statement("books")
    assert names(on_sqlite, "index") == ["i"]


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("log_books", TRIGGER),
        ("titles", "CREATE VIEW titles AS SELECT title FROM books"),
    ],
)
def test_r40_a_batch_that_breaks_a_view_or_a_trigger_is_rejected(
    on_sqlite: Revisions, name: str, sql: str
) -> None:
    create(on_sqlite, BOOKS, LOG, sql)

    with pytest.raises(CommandError, match=f"{name}.*title(.|\n)*Drop that"):
        on_sqlite.migrate(DROP_TITLE)

    assert "title" in on_sqlite.statement("books")


def test_the_check_of_a_column_goes_with_the_column(on_sqlite: Revisions) -> None:
    checks = "length INTEGER CHECK (length > 3), CHECK (length(title) < 20)"
    create(on_sqlite, BOOKS.replace(")", f", {checks})"))

    on_sqlite.migrate(DROP_TITLE.replace("title", "length"))

    assert on_sqlite.statement("books").endswith("CHECK (length(title) < 20) )")


def test_a_batch_that_drops_a_column_of_a_wider_check_is_rejected(on_sqlite: Revisions) -> None:
    """SQLite would take the name in quotes for a text, and the CHECK for true."""
    check = 'CONSTRAINT c CHECK (length("title") < pages)'
    create(on_sqlite, BOOKS.replace(")", f", {check})"))

    with pytest.raises(CommandError, match="of books that a CHECK needs"):
        on_sqlite.migrate(DROP_TITLE)


@pytest.mark.parametrize(
    "drop",
    [
        "op.execute('DROP INDEX i')\nop.execute('DROP TRIGGER log_books')",
        "op.drop_index('i', 'books')\nop.execute('DROP TRIGGER log_books')",
    ],
)
def test_r41_what_a_migration_drops_stays_dropped(on_sqlite: Revisions, drop: str) -> None:
    create(on_sqlite, BOOKS, LOG, TRIGGER, "CREATE INDEX i ON books (lower(title))")

    on_sqlite.migrate(f"{drop}\n{BATCH}")

    assert names(on_sqlite, "index") == names(on_sqlite, "trigger") == []


def test_a_batch_can_drop_and_create_indexes_on_expressions(on_sqlite: Revisions) -> None:
    create(on_sqlite, BOOKS, "CREATE INDEX old ON books (lower(title))")

    on_sqlite.migrate(
        f"{BATCH}    batch_op.drop_index('old')\n"
        "    batch_op.create_index('new', ['pages', sa.text('lower(title)')], unique=True)"
    )

    assert on_sqlite.statement("new") == "CREATE UNIQUE INDEX new ON books (pages, lower(title))"
    assert names(on_sqlite, "index") == ["new"]


def test_r41_a_migration_can_create_again_what_a_batch_used_to_lose(on_sqlite: Revisions) -> None:
    """As migrations did that were written before batches kept everything."""
    index = "CREATE UNIQUE INDEX i ON books (lower(title))"
    create(on_sqlite, BOOKS, LOG, TRIGGER, index)
    on_sqlite.write(BATCH)
    create(on_sqlite, TRIGGER.replace("new.title", "'new'"), index)
    on_sqlite.migrate(BATCH)

    assert "'new'" in on_sqlite.statement("log_books")
    assert on_sqlite.statement("i") == index


@pytest.mark.parametrize("rename", [RENAME_TITLE, RENAME_AND_REPLACE])
def test_r42_everything_follows_a_column_that_is_renamed(on_sqlite: Revisions, rename: str) -> None:
    create(
        on_sqlite,
        BOOKS.replace(
            ")", ', CONSTRAINT c CHECK (length("title") < 9), CONSTRAINT u UNIQUE (title))'
        ),
        LOG,
        TRIGGER,
        "CREATE INDEX i ON books (lower(title) DESC)",
        "CREATE VIEW titles AS SELECT title FROM books",
        "CREATE TABLE notes (title TEXT REFERENCES books (title))",
    )

    on_sqlite.migrate(f"{rename}    batch_op.create_index('new', ['name'])")

    assert on_sqlite.statement("i") == "CREATE INDEX i ON books (lower(name) DESC)"
    assert on_sqlite.statement("new") == "CREATE INDEX new ON books (name)"
    assert on_sqlite.run("SELECT \"to\" FROM pragma_foreign_key_list('notes')") == [("name",)]
    on_sqlite.run("INSERT INTO books (name) VALUES ('Emma')")
    assert on_sqlite.run("SELECT * FROM titles, log") == [("Emma", "Emma")]
    with pytest.raises(IntegrityError):
        on_sqlite.run("INSERT INTO books (name) VALUES ('longer than 9')")


@pytest.mark.parametrize(
    ("batch", "row"),
    [
        (
            "batch_op.drop_column('title')\nbatch_op.alter_column('pages', new_column_name='title')",
            (1, 7),
        ),
        (
            "batch_op.alter_column('pages', new_column_name='title')\n"
            "batch_op.alter_column('title', new_column_name='pages')",
            (1, 7, "Emma"),
        ),
    ],
)
def test_a_column_can_take_the_name_of_another(
    on_sqlite: Revisions, batch: str, row: tuple[object, ...]
) -> None:
    create(on_sqlite, BOOKS, "CREATE INDEX i ON books (pages DESC)")
    on_sqlite.run("INSERT INTO books VALUES (1, 'Emma', 7)")

    on_sqlite.migrate(
        "with op.batch_alter_table('books') as batch_op:\n" + textwrap.indent(batch, "    ")
    )

    columns = "id, title" + ", pages" * (len(row) - 2)
    assert on_sqlite.run(f"SELECT {columns} FROM books") == [row]
    assert on_sqlite.run("SELECT name FROM pragma_index_info('i')") == [("title",)]


def test_a_view_that_was_broken_before_does_not_stop_a_batch(on_sqlite: Revisions) -> None:
    create(on_sqlite, BOOKS, "CREATE VIEW broken AS SELECT gone FROM books")

    on_sqlite.migrate(BATCH)


def test_offline_a_batch_says_that_it_has_not_looked(on_sqlite: Revisions) -> None:
    on_sqlite.write(
        "books = sa.Table('books', sa.MetaData(), sa.Column('pages', sa.Integer))\n"
        "with op.batch_alter_table('books', copy_from=books) as batch_op:\n"
        "    batch_op.alter_column('pages', server_default='0')"
    )
    output = io.StringIO()

    command.upgrade(on_sqlite.config(output), "head", sql=True)

    assert "keeps no trigger of books" in output.getvalue()
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(f"CREATE TABLE books (pages INTEGER); {output.getvalue()}")
