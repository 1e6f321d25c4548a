"""Rewrites calls in the owner's code whose arguments or surroundings changed together with the name.

`[calls]` in tools/moved_names.toml has the arguments of before and of today. The rest are idioms that
the template's own routes once showed: pages of a list and an attempt that is counted.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.python_source import Import, Text

PAGING = {"app.api.pagination.Paging", "app.api.pagination.PagingDep"}
PAGINATE = Import("app.core.pagination", "paginate", None)
RESERVE = "app.services.throttle.reserve"
QUALIFIED_NAME = re.compile(r"\b(app(?:\.\w+)+):(\w+)")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Calls:
    """The calls of one file. Runs after the names were rewritten, whose edits it keeps."""

    text: Text
    tree: ast.Module
    # The dotted name, of before, that an expression means.
    dotted: Callable[[ast.expr], str | None]
    # The local name of something to import; None if the name is taken.
    local: Callable[[Import], str | None]
    # The arguments of before and of today.
    patterns: dict[str, list[list[str]]]

    def run(self) -> Iterator[tuple[int, str]]:
        """Rewrite what is mechanical; the line and the old name of each place that is not."""
        # An inner call before the one whose argument it is.
        nodes = sorted(ast.walk(self.tree), key=self.size)
        awaits = {node.value: node for node in nodes if isinstance(node, ast.Await)}
        for node in nodes:
            if isinstance(node, ast.Call):
                name = self.dotted(node.func) or ""
                patterns = self.patterns.get(name)
                if patterns and not self.rewrite_call(node, patterns, awaits.get(node)):
                    yield node.lineno, name
        for node in nodes:
            if isinstance(node, Function):
                yield from self.rewrite_pages(node)
        yield from self.rewrite_attempts()

    def size(self, node: ast.AST) -> int:
        if isinstance(node, ast.expr | ast.stmt):
            return self.text.end(node) - self.text.start(node)
        return 0

    def parameter_types(self, function: Function) -> Iterator[tuple[str, str]]:
        for parameter in [*function.args.args, *function.args.kwonlyargs]:
            if parameter.annotation is not None:
                yield parameter.arg, self.dotted(parameter.annotation) or ""

    # ---- arguments

    def rewrite_call(
        self, call: ast.Call, patterns: list[list[str]], outer: ast.Await | None
    ) -> bool:
        for before, after, *of_result in patterns:
            found = match_arguments(call, before)
            new = self.fill_in(after, found) if found is not None else None
            if new is None or (of_result and outer is None):
                continue
            if before != after:
                self.text.replace_span(self.text.end(call.func), self.text.end(call), new)
            if outer is not None and of_result:
                start, end = self.text.start(outer), self.text.end(outer)
                self.text.replace_span(start, end, f"({self.text.edited(outer)}){of_result[0]}")
            return True
        return False

    def fill_in(self, template: str, found: dict[str, ast.expr]) -> str | None:
        """The new arguments, with what the call had and with local names of what they need."""

        def local(name: re.Match[str]) -> str:
            return self.local(Import(name[1], name[2], None)) or ""

        needed = [self.local(Import(n[1], n[2], None)) for n in QUALIFIED_NAME.finditer(template)]
        if None in needed:
            return None
        names = re.compile(r"(?<![\w.])(\w+)(?!\w*=[^=])")
        text = QUALIFIED_NAME.sub(local, template)
        return names.sub(lambda n: self.text.edited(found[n[1]]) if n[1] in found else n[0], text)

    # ---- pages of a list

    def rewrite_pages(self, function: Function) -> Iterator[tuple[int, str]]:
        """`rows = await session.scalars(paging.of(Book))` and, below, `paging.slice(rows.all())`."""
        for parameter, kind in self.parameter_types(function):
            if kind in PAGING:
                uses = [
                    node
                    for node in ast.walk(function)
                    if isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == parameter
                    and node.attr not in {"after", "limit"}
                ]
                if uses and not self.rewrite_page(function, parameter):
                    yield uses[0].lineno, "app.api.pagination.PagingDep"

    def rewrite_page(self, function: Function, paging: str) -> bool:
        calls = {name: calls_of(function, paging, name) for name in ("of", "slice", "rows")}
        if [len(found) for found in calls.values()] != [1, 1, 0]:
            return False
        (of,), (cut,) = calls["of"], calls["slice"]
        stored = next((s for s in function.body if contains(s, of)), None)
        if not isinstance(stored, ast.Assign) or not is_only_cut(function, stored, cut):
            return False
        query = scalars_of(stored, of)
        paginate, select = self.local(PAGINATE), self.local(Import("sqlalchemy", "select", None))
        if query is None or paginate is None or select is None:
            return False
        model = self.text.edited(of.args[0])
        # In release 0.1.0, it took a statement and the column of the ids.
        statement = f"{select}({model})" if len(of.args) == 1 else model
        self.text.replace_span(self.text.start(of), self.text.end(of), statement)
        session, statement = map(self.text.edited, query)
        page = f"await {paginate}({session}, {statement}, {paging})"
        self.text.replace_span(self.text.start(cut), self.text.end(cut), page)
        self.text.remove_lines(stored)
        return True

    # ---- attempts that are counted

    def rewrite_attempts(self) -> Iterator[tuple[int, str]]:
        """Until release 0.4.0, an attempt was counted in a transaction that the caller began."""
        done: list[ast.Call] = []
        for block in ast.walk(self.tree):
            if isinstance(block, ast.AsyncWith) and len(block.items) == 1:
                call = awaited_call(block.body[0])
                database = database_of(block.items[0])
                if (
                    call is not None
                    and database is not None
                    and self.dotted(call.func) == RESERVE
                    and is_same_name(call.args[:1], block.items[0].optional_vars)
                ):
                    self.hoist(block, call, database)
                    done.append(call)
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Call)
                and node not in done
                and self.dotted(node.func) == RESERVE
                # Since release 0.5.0, the first argument is the database.
                and "database" not in ast.unparse(node.args[0] if node.args else node)
            ):
                yield node.lineno, RESERVE

    def hoist(self, block: ast.AsyncWith, call: ast.Call, database: ast.expr) -> None:
        """Put the first statement of a block above it, without the block if it is alone there."""
        self.text.replace_span(
            self.text.start(call.args[0]), self.text.end(call.args[0]), self.text.edited(database)
        )
        first = block.body[0]
        statement, indent = self.text.edited(first), " " * block.col_offset
        if len(block.body) == 1:
            self.text.replace_span(self.text.start(block), self.text.end(block), statement)
        else:
            self.text.remove_lines(first)
            start = self.text.start(block)
            self.text.edits.append((start, start, f"{statement}\n{indent}"))


def calls_of(function: Function, name: str, attribute: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == attribute
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == name
    ]


def contains(outer: ast.AST, inner: ast.AST) -> bool:
    return any(node is inner for node in ast.walk(outer))


def scalars_of(statement: ast.Assign, page: ast.Call) -> tuple[ast.expr, ast.expr] | None:
    """The session and the statement of `session.scalars(paging.of(Book))`."""
    for node in ast.walk(statement):
        match node:
            case ast.Call(ast.Attribute(session, "scalars"), [query], []) if contains(query, page):
                return session, query
    return None


def is_only_cut(function: Function, stored: ast.stmt, cut: ast.Call) -> bool:
    """Whether the rows of an assignment are used for nothing but `paging.slice(rows.all())`."""
    match stored, cut.args:
        case ast.Assign([ast.Name(rows)]), [ast.Name(given)] | [
            ast.Call(ast.Attribute(ast.Name(given), "all"), [], [])
        ]:
            uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == rows]
            return given == rows and len(uses) == 2
    return False


def awaited_call(statement: ast.stmt) -> ast.Call | None:
    match statement:
        case ast.Expr(ast.Await(ast.Call() as call)):
            return call
    return None


def database_of(item: ast.withitem) -> ast.expr | None:
    """`database` of `database.writers.begin()`."""
    match item.context_expr:
        case ast.Call(ast.Attribute(ast.Attribute(database, "writers"), "begin"), [], []):
            return database
    return None


def is_same_name(arguments: list[ast.expr], variable: ast.expr | None) -> bool:
    return [*map(ast.unparse, arguments)] == [variable and ast.unparse(variable)]


# ---- patterns of arguments --------------------------------------------------------------------


def match_arguments(call: ast.Call, pattern: str) -> dict[str, ast.expr] | None:
    """What the names of a pattern such as `(session, *, user_id)` stand for in a call."""
    wanted = ast.parse(f"f{pattern}", mode="eval").body
    if not isinstance(wanted, ast.Call):
        raise TypeError(pattern)
    given = {word.arg: word.value for word in call.keywords}
    names = [argument_name(argument) for argument in wanted.args]
    found: dict[str, ast.expr] = {}
    values = [*call.args, *(given.pop(name, None) for name in names[len(call.args) :])]
    if len(values) != len(names) or given.keys() != {word.arg for word in wanted.keywords}:
        return None
    pairs = [*zip(wanted.args, values, strict=True)]
    pairs += [(word.value, given[word.arg]) for word in wanted.keywords]
    for part, value in pairs:
        if value is None or isinstance(value, ast.Starred) or not is_match(part, value, found):
            return None
    return found


def argument_name(argument: ast.expr) -> str:
    return argument.id if isinstance(argument, ast.Name) else ""


def is_match(pattern: ast.expr, value: ast.expr, found: dict[str, ast.expr]) -> bool:
    """Whether an expression has the form of a pattern, whose names stand for anything."""
    match pattern, value:
        case ast.Name(name), _:
            found[name] = value
            return True
        case ast.Attribute(part, attr), ast.Attribute(inner, other):
            return attr == other and is_match(part, inner, found)
        case ast.Subscript(part, key), ast.Subscript(inner, index):
            return is_match(part, inner, found) and is_match(key, index, found)
    return False
