"""The fields that a command is given, and what they become in models, schemas and tests."""

import keyword
import re
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from pydantic import BaseModel, FiniteFloat, TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite

from app.core.types import Amount, Int32, Int64, ShortText, Text
from generators.names import BadName, Names, Target, camel, singularize, snake, to_ascii

# PostgreSQL's limit for the name of a table, an index or a constraint.
MAX_IDENTIFIER = 63
# Names that a model or a schema, the code around its columns, or a database uses itself.
TAKEN_FIELDS = {
    "bool",
    "cmax",
    "cmin",
    "collation",
    "concurrently",
    "ctid",
    "date",
    "datetime",
    "false",
    "float",
    "id",
    "int",
    "lateral",
    "list",
    "mapped_column",
    "metadata",
    "nothing",
    "property",
    "registry",
    "relationship",
    "returning",
    "self",
    "str",
    "tableoid",
    "tablesample",
    "true",
    "type_annotation_map",
    "xmax",
    "xmin",
}
# What a list reads from the query itself.
QUERY_NAMES = {"cursor", "limit", "order"}


@dataclass(frozen=True)
class Kind:
    """What a type is in a model, in a schema and in a test."""

    mapped: str
    column: str
    schema: str
    sample: str
    invalid: str


KINDS = {
    "str": Kind("str", "String(255)", "ShortText", 'f"{name} {{number}}"', '"x" * 256'),
    "text": Kind("str", "String(10_000)", "Text", 'f"{name} {{number}}"', '"x" * 10_001'),
    "int": Kind("int", "", "Int32", "number", "2**31"),
    "bigint": Kind("int", "BigInt", "Int64", "number", "2**63"),
    "bool": Kind("bool", "", "bool", "number % 2 == 0", '"maybe"'),
    "float": Kind("float", "", "FiniteFloat", "number / 2", '"much"'),
    "decimal": Kind("Decimal", "Numeric(12, 2)", "Amount", 'f"{{number}}.50"', '"0.001"'),
    "date": Kind("date", "", "date", 'f"2026-01-{{number + 1:02}}"', '"2026-02-30"'),
    "datetime": Kind(
        "datetime",
        "",
        "Timestamp",
        'f"2026-01-{{number + 1:02}}T12:00:00Z"',
        '"2026-01-01T12:00:00"',
    ),
    "uuid": Kind("UUID", "", "UUID", 'f"00000000-0000-4000-8000-{{number:012}}"', '"1"'),
    "json": Kind("Any", "JSON", "StorableJson", '{{"number": number}}', "2**63"),
}
REFERENCE = Kind("int", "BigInt", "Id", "{name}", "0")
REFERENCES = Kind("", "", "Annotated[list[Id], Field(max_length=100)]", "{name}", "[0]")
# A constant of a model whose unique values are free again when a row is deleted.
NOT_DELETED = 'NOT_DELETED = text("deleted_at IS NULL")'
LENGTHS = {"str": 255, "text": 10_000}
# What a default must be, in the schema and in the database.
DEFAULTS: dict[str, Any] = {
    "str": ShortText,
    "text": Text,
    "int": Int32,
    "bigint": Int64,
    "float": FiniteFloat,
    "decimal": Amount,
    "uuid": UUID,
}


@dataclass(frozen=True)
class Field:
    """`title:str:unique`, `blurb:text?`, `state:draft|sold:default=draft`, `tags:Tag*`."""

    name: str
    type: str
    optional: bool = False
    unique: bool = False
    index: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    target: Target | None = None
    # Whether it refers to any number of rows.
    many: bool = False
    # Whether the target is the model that has this field.
    is_own: bool = False
    # Whether the row is deleted with the one that it refers to.
    cascades: bool = False
    # Whether its unique values are free again when a row is deleted, although the row stays.
    frees_value: bool = False

    @property
    def column(self) -> str:
        if self.many:
            return f"{singularize(self.name)}_ids"
        return f"{self.name}_id" if self.target else self.name

    @property
    def kind(self) -> Kind:
        if self.choices:
            return Kind("", "", "", f'"{self.choices[0]}"', '"?"')
        if self.many:
            return REFERENCES
        return REFERENCE if self.target else KINDS[self.type]

    @property
    def is_filter(self) -> bool:
        return not self.many and bool(self.unique or self.index or self.target or self.choices)

    @property
    def is_order(self) -> bool:
        is_sortable = self.unique or self.index
        return is_sortable and not (self.optional or self.target or self.choices)

    def alias(self, model: str) -> str:
        return model + camel(self.name) if self.choices else ""

    def mapped(self, model: str) -> str:
        return (self.alias(model) or self.kind.mapped) + (" | None" if self.optional else "")

    def column_arguments(self) -> str:
        arguments = [self.kind.column] if self.kind.column else []
        if self.target:
            rule = ', ondelete="CASCADE"' if self.cascades else ""
            rule = ', ondelete="SET NULL"' if self.optional else rule
            arguments.append(f'ForeignKey("{self.target.table}.id"{rule})')
        if self.unique and not self.frees_value:
            arguments.append("unique=True")
        elif self.is_filter and (self.target or not self.unique):
            arguments.append("index=True")
        if self.type == "json" and self.optional:
            arguments[0] = "JSON(none_as_null=True)"
        if self.default is not None:
            arguments.append(f"server_default={self.server_default}")
        return ", ".join(arguments)

    @property
    def server_default(self) -> str:
        # SQLite and PostgreSQL both read '0' and '1' as a boolean.
        value = str(self.default)
        if self.type == "bool":
            value = {"false": "0", "true": "1"}[value]
        # SQLite stores a UUID as a text without hyphens.
        return f'"{UUID(value).hex if self.type == "uuid" else value}"'

    def rules(self, table: str) -> list[str]:
        """What __table_args__ has for it."""
        found = [self.check()] if self.check() else []
        if self.frees_value:
            found.append(
                f'Index("uq_{table}_{self.column}", "{self.column}", unique=True, '
                "sqlite_where=NOT_DELETED, postgresql_where=NOT_DELETED)"
            )
        return found

    def check(self) -> str:
        """The constraint that SQLite needs: it does not enforce the length of a String."""
        if self.choices:
            values = ", ".join(f"'{choice}'" for choice in self.choices)
            condition = f"{quoted(self.name)} IN ({values})"
            return f'CheckConstraint("{escaped(condition)}", "{self.name}")'
        if self.type in LENGTHS and not self.target:
            condition = f"length({quoted(self.name)}) <= {LENGTHS[self.type]}"
            return f'CheckConstraint("{escaped(condition)}", "{self.name}_length")'
        return ""

    def filter(self, model: str) -> str:
        return self.alias(model) or self.kind.schema

    def schema(self, model: str) -> str:
        is_title = self.type == "str" and not self.optional
        return "Annotated[ShortText, Field(min_length=1)]" if is_title else self.filter(model)

    def required(self, model: str) -> str:
        """Its type in the schema that creates a row, with the default."""
        if self.many:
            return f"{self.schema(model)} = []"
        if self.default is not None:
            return f"{self.schema(model)} = {self.python_default}"
        return self.schema(model) + (" | None = None" if self.optional else "")

    @property
    def python_default(self) -> str:
        value = str(self.default)
        match self.type:
            case "bool":
                return value.capitalize()
            case "int" | "bigint" | "float":
                return value
            case "decimal":
                return f'Decimal("{value}")'
            case "uuid":
                return f'UUID("{value}")'
            case "date":
                return f'date.fromisoformat("{value}")'
        return f'"{value}"'

    def read(self, model: str) -> str:
        """Its type in a response, where nothing has to be checked."""
        if self.many:
            return "list[int]"
        mapped = self.mapped(model)
        return mapped.replace("Any", "JsonValue") if self.type == "json" else mapped

    @property
    def sample(self) -> str:
        return "None" if self.is_own else self.kind.sample.format(name=self.column)

    @property
    def names(self) -> set[str]:
        """What becomes an attribute of the model or of a schema."""
        return {self.name, self.column}


def quoted(name: str) -> str:
    """A column in a CHECK, which nothing quotes: `order` is a word of SQL."""
    dialects = (sqlite.dialect(), postgresql.dialect())  # type: ignore[no-untyped-call]
    is_word = any(d.identifier_preparer.quote(name) != name for d in dialects)
    return f'"{name}"' if is_word else name


def escaped(text: str) -> str:
    return text.replace('"', '\\"')


def parse_field(text: str, targets: dict[str, Target]) -> Field:
    """A field, or BadName. `targets` are the models that a field can refer to."""
    name, _, rest = text.partition(":")
    kind, *options = split_options(rest)
    optional, many = kind.endswith("?"), kind.endswith("*")
    kind = kind.rstrip("?*")
    check_field_name(name)
    known = {"unique", "index"}
    unknown = [o for o in options if o not in known and not o.startswith("default=")]
    if unknown:
        raise BadName(f"{text}: unknown option {unknown[0]!r}; use unique, index or default=...")
    choices = tuple(kind.split("|")) if "|" in kind else ()
    check_choices(text, choices)
    target = targets.get(kind)
    if not choices and not target and kind not in KINDS:
        models = ", ".join(sorted(targets))
        raise BadName(
            f"{text}: unknown type {kind!r}; use {', '.join(KINDS)}, values such as draft|sold, or "
            f"a model: {models}"
        )
    if many and (not target or options):
        raise BadName(f"{text}: only a model has a *, such as tags:Tag*, and no options follow it")
    defaults = [o.removeprefix("default=") for o in options if o.startswith("default=")]
    field = Field(
        name,
        kind,
        optional=optional,
        unique="unique" in options,
        index="index" in options,
        default=check_default(text, kind, choices, target, defaults[0]) if defaults else None,
        choices=choices,
        target=target,
        many=many,
    )
    check_index(text, field)
    return field


def split_options(rest: str) -> list[str]:
    """The type and its options. A default may contain colons."""
    options = re.split(r":(?=unique\b|index\b|default=)", rest)
    return [
        part
        for option in options
        for part in ([option] if option.startswith("default=") else option.split(":"))
    ]


def check_field_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        example = snake(camel(to_ascii(name))) or "title"
        raise BadName(f"{name or 'a field'}: write fields like {example}:str")
    if keyword.iskeyword(name) or name in TAKEN_FIELDS or name.startswith("model_"):
        raise BadName(f"{name}: Python or generated code needs this name; choose a longer one")
    if hasattr(BaseModel, name):
        raise BadName(f"{name}: schemas have a method of this name; choose another")


def check_choices(text: str, choices: tuple[str, ...]) -> None:
    for choice in choices:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", choice):
            raise BadName(f"{text}: write values in letters and digits, such as draft|sold")
    if len(set(choices)) < len(choices):
        raise BadName(f"{text}: name each value once")


def check_index(text: str, field: Field) -> None:
    if field.type == "json" and field.is_filter:
        raise BadName(f"{text}: a json field can't have an index")
    if field.type == "text" and field.is_filter:
        raise BadName(f"{text}: a text can be too long for an index; use str")
    if field.unique and (field.choices or field.type == "bool"):
        raise BadName(f"{text}: only one row could have each value, so it can't be unique")
    if field.is_filter and field.column in QUERY_NAMES:
        raise BadName(f"{text}: lists read {field.name} from the query; choose another name")


def check_default(
    text: str, kind: str, choices: tuple[str, ...], target: Target | None, default: str
) -> str:
    if target or kind == "json" or kind == "datetime":
        raise BadName(f"{text}: this type can't have a default")
    choices = choices or (("true", "false") if kind == "bool" else ())
    if choices and default not in choices:
        raise BadName(f"{text}: the default must be one of {', '.join(choices)}")
    try:
        if kind == "date":
            return date.fromisoformat(default).isoformat()
        if kind in DEFAULTS:
            value = TypeAdapter(DEFAULTS[kind]).validate_python(default)
            default = f"{value:f}" if kind == "decimal" else str(value)
    except ValueError:
        raise BadName(f"{text}: {default!r} is not a valid {kind}") from None
    if '"' in default or "\\" in default or not default.isprintable():
        raise BadName(f"{text}: leave out quotes and backslashes in a default")
    return default


def check_fields(names: Names, fields: list[Field]) -> None:
    """What fields have in common: no name twice, and no identifier that a database would cut."""
    seen: set[str] = set()
    for field in fields:
        new = field.names | {field.alias(names.model) or field.name}
        if twice := seen & new:
            raise BadName(f"{twice.pop()}: two fields have this name")
        seen |= new
        longest = f"fk_{names.plural}_{field.column}_{field.target.table if field.target else ''}"
        if len(longest) > MAX_IDENTIFIER - len("_length"):
            raise BadName(
                f"{field.name}: with the name of the table, this is too long for a database; "
                "choose a shorter name"
            )
    if tables := seen & {f"{names.singular}_{field.name}" for field in fields if field.many}:
        raise BadName(f"{tables.pop()}: a table between two models needs this name")
    if len(names.plural) > MAX_IDENTIFIER - len("pk_") or len(f"{names.plural}:moderate") > 64:
        raise BadName(f"{names.model}: the name is too long for a database")
