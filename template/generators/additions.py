"""What `generate field`, `permission`, `setting` and `command` add to files of the owner."""

import json
import keyword
import re

from generators.fields import NOT_DELETED, Field, parse_field
from generators.names import BadName, Target
from generators.places import (
    after_assignment,
    after_docstring,
    after_fields_of,
    at_end_of_class,
    before,
    first_constraint_of,
    last_order_of,
    last_value_of_a_body,
)
from generators.project import Stage, names_in

PERMISSIONS, SETTINGS, CLI = "app/permissions.py", "app/settings.py", "app/cli.py"
SIMPLE = ("str", "int", "bool", "float")
# The names that a generated command uses.
IN_A_COMMAND = {"database", "load_settings", "run", "session", "typer"}
# What a new line in a model or in a schema may use.
COMMON = {
    **dict.fromkeys(("Annotated", "Any", "Literal"), "typing"),
    **dict.fromkeys(("date", "datetime"), "datetime"),
    "Decimal": "decimal",
    "UUID": "uuid",
}
MODEL_IMPORTS = COMMON | {
    **dict.fromkeys(
        ("JSON", "CheckConstraint", "ForeignKey", "Index", "Numeric", "String"), "sqlalchemy"
    ),
    **dict.fromkeys(("Mapped", "mapped_column"), "sqlalchemy.orm"),
    "BigInt": "app.core.types",
}
SCHEMA_IMPORTS = COMMON | {
    **dict.fromkeys(("Field", "FiniteFloat", "JsonValue"), "pydantic"),
    **dict.fromkeys(
        ("Amount", "Id", "Int32", "Int64", "ShortText", "StorableJson", "Text", "Timestamp"),
        "app.core.types",
    ),
}


def check_new_field(target: Target, field: Field, text: str) -> None:
    """Existing rows need a valid value."""
    if target.module.startswith("app.auth."):
        raise BadName(f"{target.model} belongs to the template; refer to it from a model of yours")
    if not target.module.startswith("app.models."):
        raise BadName(f"{target.model} is in {target.module}, not in app/models; add it by hand")
    if field.many:
        raise BadName(f"{text}: add the table of a * by hand, or with a new resource")
    if not field.optional and field.default is None:
        can_have_default = not field.target and field.type not in {"json", "datetime"}
        or_default = f", or {text}:default=..." if can_have_default else ""
        raise BadName(f"existing rows need a value: write {field.name}:{field.type}?{or_default}")
    if field.unique and field.default is not None:
        raise BadName(f"{text}: existing rows would share the default, so it can't be unique")


def write_field(stage: Stage, target: Target, field: Field) -> None:
    file = f"{target.module.replace('.', '/')}.py"
    model, arguments, alias = target.model, field.column_arguments(), field.alias(target.model)
    value = f" = mapped_column({arguments})" if arguments else ""
    code = f"    {field.column}: Mapped[{field.mapped(model)}]{value}"
    stage.insert(file, code, after_fields_of(model))
    if alias:
        literal = f"{alias} = Literal[{', '.join(map(json.dumps, field.choices))}]"
        stage.insert(file, f"{literal}\n\n", before(model))
        code += literal
    if field.frees_value and NOT_DELETED not in stage.read(file):
        stage.insert(file, f"{NOT_DELETED}\n\n", before(model))
        # Only here: a field can have the name `text`, too.
        stage.add_imports(file, NOT_DELETED, {"text": "sqlalchemy"})
    for rule in reversed(field.rules(target.table)):
        write_constraint(stage, file, model, rule)
        code += rule
    stage.add_imports(file, code, MODEL_IMPORTS)
    write_schemas(stage, target, field)
    for folder in ("tests/auth", "tests"):
        tests = f"{folder}/test_{target.table}.py"
        if (stage.folder / tests).exists() and not field.target:
            stage.insert_inline(tests, f', "{field.column}": {field.sample}', last_value_of_a_body)


def write_constraint(stage: Stage, file: str, model: str, constraint: str) -> None:
    if stage.insert_inline(file, f"{constraint}, ", first_constraint_of(model)):
        return
    if "__table_args__" in stage.read(file):
        stage.left_over.append(f"{file}, in __table_args__ of {model}: {constraint}")
    else:
        line = f"    __table_args__ = ({constraint},)"
        stage.insert(file, line, after_assignment("__tablename__", model))


def write_schemas(stage: Stage, target: Target, field: Field) -> None:
    model, alias = target.model, field.alias(target.model)
    module = target.module.rpartition(".")[2]
    file = f"app/schemas/{module}.py"
    lines = {
        "Create": f"    {field.column}: {field.required(model)}",
        "Update": f"    {field.column}: {field.schema(model)} | None = None",
        "Read": f"    {field.column}: {field.read(model)}",
    }
    if field.is_filter:
        lines["Filters"] = f"    {field.column}: {field.filter(model)} | None = None"
    if target.module == "app.models.user":
        # The login creates and changes users, and knows only its own fields.
        lines = {"Read": lines["Read"]}
    if not (stage.folder / f"app/api/v1/{module}_router.py").exists():
        # Routes that were written by hand may not pass on what a schema has.
        stage.left_over += [
            f"{file}, in {model}{verb}: {line.strip()}" for verb, line in lines.items()
        ]
        return
    for verb, line in lines.items():
        stage.insert(file, line, after_fields_of(f"{model}{verb}"))
    stage.add_imports(
        file, "".join(lines.values()), SCHEMA_IMPORTS | ({alias: target.module} if alias else {})
    )
    if field.is_order:
        orders = f', "{field.column}", "-{field.column}"'
        stage.insert_inline(file, orders, last_order_of(f"{model}Filters"))


def write_permission(stage: Stage, name: str, description: str) -> str:
    """Returns the member."""
    if not (stage.folder / PERMISSIONS).exists():
        raise BadName("permissions need the login, which this project lacks")
    if not re.fullmatch(r"[a-z][a-z0-9_]*:[a-z][a-z0-9_]*", name) or len(name) > 64:
        raise BadName(f"{name}: write a permission like books:lend")
    if not description.isprintable() or set(description) & set('"\\') or len(description) > 60:
        raise BadName("write a short description without quotes and backslashes")
    member = name.replace(":", "_").upper()
    text = stage.read(PERMISSIONS)
    if re.search(rf"\b{member}\b", text) or f'"{name}"' in text:
        raise BadName(f"{name} exists, or a permission with the member {member}")
    line = f'    {member} = "{name}", "{description}"'
    stage.insert(PERMISSIONS, line, at_end_of_class("PermissionName"))
    return member


def write_setting(stage: Stage, text: str, known: set[str]) -> None:
    field = parse_field(text, {})
    if field.name in known:
        raise BadName(f"{field.name} is a setting already")
    if field.type not in SIMPLE or field.default is None or field.is_filter or field.optional:
        raise BadName("write a str, int, bool or float with a default: shelf:str:default=oak")
    line = f"    {field.name}: {field.type} = {field.python_default}"
    stage.insert(SETTINGS, line, after_fields_of("Settings"))
    if (stage.folder / ".env.example").exists():
        example = f"# {field.name.upper()}={field.default}"
        before = stage.read(".env.example").rstrip()
        ending = "\r\n" if "\r\n" in before else "\n"
        stage.write(".env.example", f"{before}{ending}{example}{ending}")


def write_command(stage: Stage, name: str, arguments: list[str], known: set[str]) -> None:
    function = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BadName(f"{name}: write a command like import-books")
    if name in known:
        raise BadName(f"{name} is a command already")
    if keyword.iskeyword(function) or function in names_in(stage.read(CLI)) | {
        "main",
        *IN_A_COMMAND,
    }:
        raise BadName(f"{name}: {CLI} uses this name; choose another one")
    fields = []
    for text in arguments:
        field = parse_field(text, {})
        if field.type not in SIMPLE or field.optional or field.default or field.is_filter:
            raise BadName(f"{text}: an argument is a str, int, bool or float, such as folder:str")
        fields.append(field)
    # A bool is an option, such as --dry-run, which comes after the others.
    fields.sort(key=lambda field: field.type == "bool")
    names = [field.name for field in fields]
    if taken := {*names} & IN_A_COMMAND:
        raise BadName(f"{taken.pop()}: generated code needs this name; choose another one")
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadName(f"{twice[0]}: two arguments have this name")
    code = stage.render("command.py", function=function, fields=fields)
    stage.insert(CLI, code, before("main"))
    stage.add_imports(CLI, "run", {"run": "app.core.commands"})
    if "\nimport typer\n" not in stage.read(CLI):
        stage.insert(CLI, "import typer", after_docstring)
