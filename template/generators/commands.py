"""The commands `generate ...`, which write code into the project."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from generators.additions import (
    PERMISSIONS,
    check_new_field,
    write_command,
    write_field,
    write_permission,
    write_setting,
)
from generators.changes import GenerateError, exclusive_lock, finish
from generators.fields import (
    LENGTHS,
    MAX_IDENTIFIER,
    Field,
    check_fields,
    parse_field,
    quoted,
)
from generators.names import Above, BadName, Names, Target
from generators.places import after_calls_of, after_imports_from, at_end_of_class, at_end_of_set
from generators.project import Stage, check_committed, names_in, staged

PROJECT = Path(__file__).resolve().parents[1]
ROUTERS = "app/api/routers.py"

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes, but make none.")]
Force = Annotated[bool, typer.Option("--force", help="Don't ask for a clean git status.")]


@cli.callback()
def describe() -> None:
    """Write new code in the style of this project. The templates in generators/ are yours."""


@cli.command()
def resource(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The model, such as Book.")],
    fields: Annotated[
        list[str] | None, typer.Argument(help="Such as title:str:unique pages:int?")
    ] = None,
    owned_by: Annotated[str, typer.Option(help="The field with the user who may change it.")] = "",
    nested_in: Annotated[str, typer.Option(help="The field with the row that it is part of.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Read without a login.")] = False,
    soft_delete: Annotated[bool, typer.Option("--soft-delete", help="Keep deleted rows.")] = False,
    search: Annotated[str, typer.Option(help="Texts that lists search: title,blurb")] = "",
    total: Annotated[str, typer.Option(help="Count the whole list: exact or estimated.")] = "",
    no_tests: Annotated[bool, typer.Option("--no-tests", help="Write no tests.")] = False,
    plural: Annotated[str, typer.Option(help="Such as people, if the guess is wrong.")] = "",
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Write a model, a migration, schemas, routes and tests.

    Such as: Book title:str:unique pages:int. A field is NAME:TYPE. The types:
    str, text, int, bigint, bool, float, decimal, date, datetime, uuid, json,
    values such as draft|sold, or another model. A "?" after the type makes it
    optional, a "*" after a model refers to many rows; then follow :unique,
    :index and :default=VALUE.
    """
    with changing(dry_run, force) as stage:
        names, found = parse_resource(name, plural, fields or [], nested_in)
        if total not in {"", "exact", "estimated"}:
            raise BadName(f"--total {total}: write exact or estimated")
        values = template_values(names, found, owned_by, nested_in, public, soft_delete)
        searched = find_searched(names, found, search, total)
        values |= {"page": "CountedPage" if total else "Page", "total": total}
        values |= {"search": searched, "quoted": quoted}
        check_unused(names, found)
        write_resource(stage, names, values, with_tests=not no_tests)
        stage.migrate(f"add {names.words}")
        if searched:
            stage.add_migration(f"search_{names.plural}", "search.py", **values)
    needed = needed_permissions(names, values)
    if needed and not dry_run:
        program = context.find_root().command_path.removesuffix(" generate")
        typer.echo(f"Then let users in: {program} permission grant USERNAME {' '.join(needed)}")


@cli.command("field")
def add_field(
    model: Annotated[str, typer.Argument(help="The model, such as Book.")],
    field: Annotated[str, typer.Argument(help="Such as subtitle:str? or pages:int:default=0")],
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Add a field to a model, its schemas and tests, with a migration: Book subtitle:str?

    Existing rows need a value: make the field optional, or give it a default.
    """
    with changing(dry_run, force) as stage:
        targets = models()
        if model not in targets:
            raise BadName(f"there is no model {model}; the models are {', '.join(sorted(targets))}")
        target = targets[model]
        new = parse_field(field, targets)
        check_new_field(target, new, field)
        check_fields(Names(model, target.table), [new])
        if "deleted_at" in columns_of(target.table):
            new = replace(new, frees_value=new.unique)
        if known := new.names & names_of(model):
            raise BadName(f"{model} has a field {known.pop()}")
        write_field(stage, target, new)
        stage.migrate(f"add {new.name} to {target.singular.replace('_', ' ')}")


@cli.command()
def permission(
    name: Annotated[str, typer.Argument(help="Such as books:lend")],
    description: Annotated[str, typer.Argument(help="Such as 'Lend books'")],
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Declare a permission, for routes to ask for: books:lend "Lend books" """
    with changing(dry_run, force) as stage:
        member = write_permission(stage, name, description)
    if not dry_run:
        typer.echo(f"Routes ask for it with require(PermissionName.{member}).")
        typer.echo("It can be granted after: alembic upgrade head")


@cli.command()
def setting(
    field: Annotated[str, typer.Argument(help="Such as shelf:str:default=oak")],
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Add a setting with a default to app/settings.py and .env.example: shelf:str:default=oak"""
    from app.settings import Settings

    with changing(dry_run, force) as stage:
        write_setting(stage, field, {*dir(Settings), *Settings.model_fields})


@cli.command()
def command(
    name: Annotated[str, typer.Argument(help="Such as import-books")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Such as folder:str")] = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Add a command to app/cli.py, for you to fill in: import-books folder:str"""
    from app.cli import cli as commands

    known = {*typer.main.get_group(commands).commands}
    with changing(dry_run, force) as stage:
        write_command(stage, name, arguments or [], known)


@contextmanager
def changing(dry_run: bool, force: bool) -> Iterator[Stage]:
    """Everything or nothing: the project changes after the work in its copy has succeeded."""
    try:
        with nullcontext() if dry_run else exclusive_lock(PROJECT):
            if not dry_run:
                check_ready(force)
            with staged(PROJECT) as stage:
                yield stage
                stage.format()
                if dry_run:
                    typer.echo(stage.diff())
                else:
                    stage.apply()
                    show(stage)
                for line in stage.left_over:
                    typer.echo(f"Add this line yourself. {line}")
    except (BadName, GenerateError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def check_ready(force: bool) -> None:
    if files := finish(PROJECT):
        raise GenerateError(
            f"a command was interrupted; its changes are now complete, in {', '.join(files)}; "
            "look at them with git diff, and run this again"
        )
    if not force:
        check_committed(PROJECT)


def show(stage: Stage) -> None:
    for file in stage.changed:
        typer.echo(file)
    if any(file.startswith("alembic/") for file in stage.changed):
        typer.echo("Read the migration, then run: alembic upgrade head")


def models() -> dict[str, Target]:
    """The models of the project by name."""
    import app.models
    from app.db.base import Base

    assert app.models.metadata is Base.metadata  # noqa: S101
    return {
        mapper.class_.__name__: Target(
            mapper.class_.__name__, mapper.class_.__module__, str(mapper.local_table)
        )
        for mapper in Base.registry.mappers
    }


def rows_above(model: str, column: str, target: Target) -> list[Above]:
    """Those that a row is nested in, up to the last one that a soft delete hides.

    It hides everything that is nested in it.
    """
    from app.db.base import Base

    table = Base.metadata.tables[target.table]
    known = {found.table: found for found in models().values()}
    further: list[Above] = []
    for reference in table.columns:
        for key in reference.foreign_keys:
            found = known.get(key.column.table.name, target)
            # Only what is nested in a row is deleted with it.
            is_nested = key.ondelete == "CASCADE" and not reference.nullable and found != target
            further = further or (
                rows_above(target.model, reference.key, found) if is_nested else []
            )
    is_soft = "deleted_at" in table.columns
    if not (is_soft or further):
        return []
    return [Above(target, f"{target.model}.id == {model}.{column}", is_soft), *further]


def columns_of(table: str) -> set[str]:
    from app.db.base import Base

    return {*Base.metadata.tables[table].columns.keys()}


def names_of(model: str) -> set[str]:
    """Of its columns, relationships and methods."""
    from app.db.base import Base

    (found,) = (m.class_ for m in Base.registry.mappers if m.class_.__name__ == model)
    return {*dir(found)}


def parse_resource(
    name: str, plural: str, texts: list[str], nested_in: str
) -> tuple[Names, list[Field]]:
    if found := models().get(name):
        raise BadName(f"{name} exists, in {found.module}; choose another name")
    names = Names.parse(name, plural or None)
    own = Target(names.model, f"app.models.{names.singular}", names.plural)
    targets = {**models(), names.model: own}
    fields = [parse_field(text, targets) for text in texts]
    fields = [replace(field, is_own=field.target == own) for field in fields]
    for field in fields:
        if field.is_own and field.many:
            raise BadName(f"{field.name}: write a model for the links of {name} to {name}")
        if field.is_own and not field.optional:
            raise BadName(f"{field.name}: no first row could exist; write {field.name}:{name}?")
    if not any(field.name != nested_in for field in fields):
        raise BadName("name at least one field, such as title:str")
    check_fields(names, fields)
    return names, fields


def check_unused(names: Names, fields: list[Field]) -> None:
    """Neither the tables nor the path may be in use."""
    from app.db.base import Base

    linked = (f"{names.singular}_{field.name}" for field in fields if field.many)
    for table in (names.plural, f"{names.plural}_search", *linked):
        if table in Base.metadata.tables:
            raise BadName(f"the table {table} exists; choose another name, or use --plural")
    if f'prefix="/{names.path}"' in "".join(
        file.read_text("utf-8") for file in (PROJECT / "app").rglob("*router.py")
    ):
        raise BadName(f"the path /{names.path} is in use; choose another name, or use --plural")


def find_reference(fields: list[Field], name: str, option: str, model: str = "") -> Field | None:
    if not name:
        return None
    for field in fields:
        is_reference = field.target and not field.optional and not field.many
        if field.name == name and is_reference and model in ("", field.type):
            if field.unique:
                raise BadName(f"{option} {name}: a unique field allows one row; leave out :unique")
            return field
    raise BadName(f"{option} {name}: name a required field, such as {name}:{model or 'Book'}")


def find_searched(names: Names, fields: list[Field], texts: str, total: str) -> list[Field]:
    """The fields that --search names."""
    if not texts:
        return []
    known = {f.name: f for f in fields if f.type in LENGTHS}
    wanted = texts.split(",")
    if unknown := [text for text in wanted if text not in known]:
        raise BadName(f"--search {unknown[0]}: name a str or a text, such as title:str")
    if len(wanted) > len({*wanted}):
        raise BadName(f"--search {texts}: name each field once")
    if total:
        raise BadName("leave out --search or --total: a search can't count all that it would find")
    if any(field.is_filter and field.column == "q" for field in fields):
        raise BadName("--search: lists read q from the query; choose another name for the field")
    if len(f"{names.plural}_search") > MAX_IDENTIFIER:
        raise BadName(f"{names.model}: the name is too long for a search")
    return [known[text] for text in wanted]


def check_options(
    names: Names, fields: list[Field], owner: Field | None, parent: Field | None, soft: bool
) -> None:
    if owner and owner == parent:
        raise BadName("--owned-by and --nested-in: name two different fields")
    if parent and parent.column == f"{names.singular}_id":
        raise BadName(f"--nested-in {parent.name}: the path needs this name; choose another one")
    if soft and any(field.name == "deleted_at" for field in fields):
        raise BadName("--soft-delete adds deleted_at itself; leave out the field")


def template_values(
    names: Names, fields: list[Field], owned_by: str, nested_in: str, public: bool, soft: bool
) -> dict[str, object]:
    """What the templates know."""
    auth = (PROJECT / PERMISSIONS).exists()
    if (owned_by or public) and not auth:
        raise BadName("--owned-by and --public need the login, which this project lacks")
    owner = find_reference(fields, owned_by, "--owned-by", "User")
    parent = find_reference(fields, nested_in, "--nested-in")
    check_options(names, fields, owner, parent, soft)
    if parent:
        fields = [replace(f, cascades=f == parent) for f in fields]
        parent = next(field for field in fields if field.cascades)
    if soft:
        fields = [replace(f, frees_value=f.unique) for f in fields]
    filters = [f for f in fields if f.is_filter and f != parent]
    sortable = ["id", *(f.column for f in fields if f.is_order)]
    prefix = f"/{names.path}"
    if parent and parent.target:
        path = Names(parent.target.model, parent.target.table).path
        prefix = f"/{path}/{{{parent.column}:id}}{prefix}"
    return {
        "names": names,
        "fields": fields,
        "columns": [f for f in fields if not f.many],
        "lists": [f for f in fields if f.many],
        "inputs": [f for f in fields if f not in (owner, parent)],
        "filters": filters,
        "orders": [sign + column for column in sortable for sign in ("", "-")],
        "rules": [rule for f in fields for rule in f.rules(names.plural)],
        "prefix": prefix,
        "owner": owner,
        "parent": parent,
        "above": rows_above(names.model, parent.column, parent.target)
        if parent and parent.target
        else [],
        "auth": auth,
        "public": public,
        "soft_delete": soft,
    }


def write_resource(
    stage: Stage, names: Names, values: dict[str, object], *, with_tests: bool
) -> None:
    module = names.singular
    stage.create(f"app/models/{module}.py", "model.py", **values)
    stage.create(f"app/schemas/{module}.py", "schemas.py", **values)
    stage.create(f"app/api/v1/{module}_router.py", "router.py", **values)
    if with_tests:
        folder = "tests/auth" if values["auth"] else "tests"
        stage.create(f"{folder}/test_{names.plural}.py", "tests.py", **values)
    if values["auth"]:
        declare_permissions(stage, names, values)
    alias = f"{module}_router" if module in names_in(stage.read(ROUTERS)) else module
    stage.insert(
        ROUTERS,
        f"from app.api.v1.{module}_router import router as {alias}",
        after_imports_from("app.api.v1."),
    )
    stage.insert(ROUTERS, f"    v1.include_router({alias})", after_calls_of("v1.include_router"))


def needed_permissions(names: Names, values: dict[str, object]) -> list[str]:
    """What callers need. Owned rows are open to every user."""
    if values["owner"] or not values["auth"]:
        return []
    actions = ["write"] if values["public"] else ["read", "write"]
    return [f"{names.plural}:{action}" for action in actions]


def declare_permissions(stage: Stage, names: Names, values: dict[str, object]) -> None:
    words, plural = names.plural_words, names.plural
    declared = {
        "read": f"See all {words}",
        "write": f"Create, change and delete {words}",
    }
    if values["owner"]:
        declared = {"moderate": f"Change and delete {words} of other users"}
    elif values["public"]:
        del declared["read"]
    known = names_in(stage.read(PERMISSIONS))
    for action, description in declared.items():
        member = f"{plural.upper()}_{action.upper()}"
        line = f'    {member} = "{plural}:{action}", "{description}"'
        if member not in known:
            stage.insert(PERMISSIONS, line, at_end_of_class("PermissionName"))
    if values["public"]:
        path = f"/api/v1{values['prefix']}".replace(":id}", "}")
        for route in (path, f"{path}/{{{names.singular}_id}}"):
            stage.insert(PERMISSIONS, f'    ("GET", "{route}"),', at_end_of_set("PUBLIC_ROUTES"))
