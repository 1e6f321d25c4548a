"""Autogenerate: clean after usual models, and no threat to what it does not know."""

import pytest
from alembic import command
from alembic.util import CommandError

from tests.conftest import SERVER
from tests.core.revisions import Revisions

COLUMNS = [
    'String(20), server_default=""',
    'String(20), server_default="it\'s"',
    'Text, server_default="a\\nb"',
    'String(20), server_default="(none)"',
    'String(20), server_default="100%"',
    "String(20), server_default=text(\"''\")",
    'String(20), server_default=func.lower("A")',
    'Integer, server_default="0"',
    'Integer, server_default=text("0")',
    'Integer, server_default=text("-1")',
    "DateTime(timezone=True), server_default=func.now()",
    "Boolean, server_default=false()",
    'Boolean(create_constraint=True, name="yes"), server_default=true()',
    'Enum("a", "b", name="letter", native_enum=False, create_constraint=True)',
    'Numeric(10, 2), server_default="0.5"',
    'JSON, server_default="{}"',
    "JSON, server_default='{\"a\":1}'",
    "Uuid",
    "LargeBinary",
    "Interval",
    "Double",
    "BigInteger().with_variant(Integer, 'sqlite'), Identity()",
    'Integer, Computed("id + 1", persisted=True)',
    "String(20), unique=True",
    "String(20), index=True",
]
ITEMS = [
    'Index("i", text("lower(title)"), unique=True)',
    'Index("i", text("title DESC"), "pages")',
    'Index("i", "title", sqlite_where=text("pages > 3"), postgresql_where=text("pages > 3"))',
    'CheckConstraint("pages > 3", "pages")',
    'CheckConstraint("title LIKE \'%x\'", "title")',
    "CheckConstraint(\"title IN ('a', 'B c') OR length(title) = 7\", \"title\")",
    'Column("x", Enum("a", "b", name="letter", native_enum=False, create_constraint=True))',
    'ForeignKeyConstraint(["pages"], ["books.id"], ondelete="SET NULL")',
]
SQLITE_ITEMS = [
    'Index("i", text("title COLLATE NOCASE"), unique=True)',
    'Column("name", String(20, collation="NOCASE"), unique=True)',
]


def books(*items: str) -> str:
    columns = 'Column("title", String(20)), Column("pages", BigInteger)'
    identity = 'Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)'
    return f"Table('books', metadata, {', '.join([identity, columns, *items])})"


def test_r23_autogenerate_is_clean_after_a_new_table(revisions: Revisions) -> None:
    columns = [f'Column("c{number}", {column})' for number, column in enumerate(COLUMNS)]
    revisions.write_models(books(*columns))

    revisions.autogenerate()

    revisions.check()


@pytest.mark.parametrize("item", ITEMS + ([] if SERVER else SQLITE_ITEMS))
def test_r23_what_a_model_gains_and_loses_is_in_one_migration(
    revisions: Revisions, item: str
) -> None:
    revisions.write_models(books())
    revisions.autogenerate()

    for model in (books(item), books()):
        revisions.write_models(model)
        with pytest.raises(CommandError, match="New upgrade operations"):
            revisions.check()
        revisions.autogenerate()
        revisions.check()

    command.downgrade(revisions.config(), "base")
    revisions.upgrade()
    revisions.check()
    command.downgrade(revisions.config(), "-1")
    revisions.write_models(books(item))
    # Only a database at the head can be compared.
    command.stamp(revisions.config(), "head")
    revisions.check()


def test_r44_the_text_of_a_check_is_compared(on_sqlite: Revisions) -> None:
    for members in ('"a", "b"', '"a", "b", "c"', '"a", "c", "longer"'):
        on_sqlite.write_models(
            books(
                f'Column("x", Enum({members}, name="letter", native_enum=False,'
                " create_constraint=True))"
            )
        )
        on_sqlite.autogenerate()
        on_sqlite.check()

    on_sqlite.run("INSERT INTO books (x) VALUES ('c'), ('longer')")


def test_a_changed_collation_is_noticed(on_sqlite: Revisions) -> None:
    on_sqlite.write_models(books('Column("name", String(20))'))
    on_sqlite.autogenerate()
    on_sqlite.write_models(books('Column("name", String(20, collation="NOCASE"))'))

    on_sqlite.autogenerate()

    assert 'name VARCHAR(20) COLLATE "NOCASE"' in on_sqlite.statement("books")
    on_sqlite.check()


def test_r43_autogenerate_keeps_what_no_migration_names(revisions: Revisions) -> None:
    revisions.write_models(books())
    revisions.autogenerate()
    revisions.run(
        "CREATE TABLE by_hand (id INTEGER PRIMARY KEY)",
        "CREATE INDEX by_hand_too ON books (pages)",
        "ALTER TABLE books ADD COLUMN legacy INTEGER",
        "CREATE VIEW titles AS SELECT title FROM books",
    )

    revisions.check()


def test_autogenerate_drops_a_table_that_a_migration_has_created(revisions: Revisions) -> None:
    revisions.write_models(books('Index("i", text("lower(title)"))'))
    revisions.autogenerate()
    revisions.write_models()

    assert "op.drop_table('books')" in revisions.autogenerate()
    revisions.check()


def test_a_table_of_an_earlier_release_differs_in_nothing_that_autogenerate_sees(
    on_sqlite: Revisions,
) -> None:
    """Since this release, new tables never give an id twice. The others keep their rows as is."""
    on_sqlite.write_models(books())
    on_sqlite.autogenerate()
    on_sqlite.write_models(books("sqlite_autoincrement=True"))

    on_sqlite.check()


def test_a_table_that_never_gives_an_id_twice_comes_back_as_it_was(on_sqlite: Revisions) -> None:
    on_sqlite.write_models(books("sqlite_autoincrement=True"))
    assert "sqlite_autoincrement=True" in on_sqlite.autogenerate()
    on_sqlite.write_models()
    on_sqlite.autogenerate()

    command.downgrade(on_sqlite.config(), "-1")

    assert "AUTOINCREMENT" in on_sqlite.statement("books")


@pytest.mark.skipif(not SERVER, reason="SQLite has no enum types")
@pytest.mark.parametrize("column", ['Column("state", {})', 'Column("states", ARRAY({}))'])
def test_a_new_value_of_an_enum_is_named_with_the_statement_that_adds_it(
    revisions: Revisions, column: str
) -> None:
    revisions.write_models(books(column.format('Enum("draft", name="states")')))
    revisions.autogenerate()
    revisions.write_models(books(column.format('Enum("draft", "ada\'s", name="states")')))

    with pytest.raises(CommandError, match=r"has the new value .*without --autogenerate") as raised:
        revisions.check()
    statement = str(raised.value).partition('op.execute("')[2].partition('")')[0]
    revisions.migrate(f'op.execute("{statement}")')
    revisions.check()


def test_a_model_of_a_view_is_not_a_new_table(revisions: Revisions) -> None:
    revisions.write_models(books())
    revisions.autogenerate()
    revisions.migrate("op.execute('CREATE VIEW titles AS SELECT title FROM books')")

    revisions.write_models(books(), "Table('titles', metadata, Column('title', String))")

    revisions.check()


def test_r43_full_text_search_is_left_alone(on_sqlite: Revisions) -> None:
    on_sqlite.write_models(books())
    on_sqlite.autogenerate()
    on_sqlite.migrate(
        'op.execute("CREATE VIRTUAL TABLE books_fts USING fts5(title, content=books)")'
    )

    on_sqlite.check()
