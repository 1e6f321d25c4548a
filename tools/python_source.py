"""Edits Python source in place: positions come from `ast`, everything else keeps its formatting."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, Protocol

LINE_LENGTH = 100
# A comment that programs read.
DIRECTIVE = re.compile(r"#\s*(noqa|type:|pyright|pylint|ruff|isort|pragma)")
FIRST_PARTY = {"app", "tests"}


class Node(Protocol):
    """What has a position: a statement, an expression, a name in an import."""

    lineno: int
    col_offset: int
    end_lineno: int | None
    end_col_offset: int | None


class Import(NamedTuple):
    """A name that an import binds; `module` is empty for `import x`."""

    module: str
    name: str
    asname: str | None

    def __str__(self) -> str:
        return f"{self.name} as {self.asname}" if self.asname else self.name


@dataclass
class Text:
    """A source text, without a byte order mark, and the edits to it.

    Offsets count bytes of UTF-8, as `ast` does.
    """

    source: str
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    @cached_property
    def data(self) -> bytes:
        return self.source.encode("utf-8")

    @cached_property
    def line_starts(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer(rb"\n", self.data))]

    def start(self, node: Node) -> int:
        return self.line_starts[node.lineno - 1] + node.col_offset

    def end(self, node: Node) -> int:
        return self.line_starts[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)

    def lines(self, first: int, last: int) -> list[str]:
        return self.source.split("\n")[first - 1 : last]

    def line_start(self, number: int) -> int:
        """Where this line begins; behind the last line, the end of the text."""
        is_line = number <= len(self.line_starts)
        return self.line_starts[number - 1] if is_line else len(self.data)

    def line_end(self, offset: int) -> int:
        """Where the line with this offset ends, before its line break."""
        end = self.data.find(b"\n", offset)
        return end if end >= 0 else len(self.data)

    def of(self, first: Node, last: Node | None = None) -> str:
        return self.data[self.start(first) : self.end(last or first)].decode("utf-8")

    def replace(self, first: Node, last: Node, text: str) -> None:
        self.edits.append((self.start(first), self.end(last), text))

    def replace_attribute(self, node: ast.Attribute, name: str) -> None:
        end = self.end(node)
        self.edits.append((end - len(node.attr.encode("utf-8")), end, name))

    def replace_module(self, statement: ast.ImportFrom, module: str) -> None:
        found = re.compile(rb"from\s+([\w.]+)").match(self.data, self.start(statement))
        if found:
            self.edits.append((*found.span(1), module))

    def replace_statement(self, statement: ast.stmt, statements: list[str]) -> None:
        """Put import statements in the place of one, with its comments: each with its directives."""
        line_end = self.line_end(self.end(statement))
        rest = self.data[self.end(statement) : line_end]
        # This one stays where it is: behind the last statement.
        behind = rest.decode("utf-8").strip() if rest.strip().startswith(b"#") else ""
        found = dict.fromkeys(text.rstrip() for text in re.findall(r"#.*", self.of(statement)))
        present = {text for line in statements for text in re.findall(r"#.*", line)}
        # Of two names that are one by now.
        present |= {part for text in present for part in re.split(r"  (?=#)", text)}
        inside = [text for text in found if text not in present]
        indent = " " * statement.col_offset
        if not statements:
            # The line goes with it.
            end = min(line_end + 1, len(self.data))
            self.edits.append((self.line_start(statement.lineno), end, ""))
            return
        lines = []
        for number, line in enumerate(statements, 1):
            comments = [behind] * (number < len(statements) and bool(DIRECTIVE.match(behind)))
            comments += [text for text in inside if number == 1 or DIRECTIVE.match(text)]
            lines.append("".join([line, *(f"  {text}" for text in comments)]))
        self.replace(statement, statement, f"\n{indent}".join(lines))

    def inner_edits(self, start: int, end: int) -> list[tuple[int, int, str]]:
        return [edit for edit in self.edits if start <= edit[0] and edit[1] <= end]

    def edited(self, node: Node) -> str:
        """The text of a node with the edits in it."""
        start, end = self.start(node), self.end(node)
        return self._apply(self.inner_edits(start, end), start, end)

    def replace_span(self, start: int, end: int, text: str) -> None:
        """Replace a part of the text, with the edits in it."""
        inner = self.inner_edits(start, end)
        self.edits[:] = [edit for edit in self.edits if edit not in inner]
        self.edits.append((start, end, text))

    def remove_lines(self, statement: ast.stmt) -> None:
        last = statement.end_lineno or statement.lineno
        self.replace_span(self.line_start(statement.lineno), self.line_start(last + 1), "")

    def result(self) -> str:
        return self._apply(self.edits, 0, len(self.data))

    def _apply(self, edits: list[tuple[int, int, str]], begin: int, stop: int) -> str:
        data, done, parts = self.data, begin, []
        for start, end, text in sorted(dict.fromkeys(edits), key=lambda edit: edit[:2]):
            if start < done:
                raise ValueError("overlapping edits")
            parts += [data[done:start], text.encode("utf-8")]
            done = end
        return b"".join([*parts, data[done:stop]]).decode("utf-8")


# ---- import statements ------------------------------------------------------------------------


def render_imports(
    imports: list[Import], column: int = 0, comments: Mapping[Import, str] = MappingProxyType({})
) -> list[str]:
    """Statements for these names: one for each module, and one for each name with an alias."""
    statements = []
    for module in dict.fromkeys(new.module for new in imports):
        names = sorted({new for new in imports if new.module == module}, key=_order)
        if not module:
            statements += [f"import {name}" for name in names]
            continue
        plain = [name for name in names if not name.asname]
        groups = [[name] for name in names if name.asname] + ([plain] if plain else [])
        for group in sorted(groups, key=lambda group: _order(group[0])):
            line = f"from {module} import {', '.join(map(str, group))}"
            if column + len(line) > LINE_LENGTH or any(name in comments for name in group):
                indent = " " * column
                lines = (f"{indent}    {name},{comments.get(name, '')}\n" for name in group)
                line = f"from {module} import (\n{''.join(lines)}{indent})"
            statements.append(line)
    return statements


def _order(new: Import) -> tuple[int, str, str, str]:
    """Constants, classes, then the others, as ruff sorts the names of a statement."""
    name = new.name
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name.casefold(), name, new.asname or ""


def imports_of(statement: ast.stmt) -> list[Import]:
    if isinstance(statement, ast.ImportFrom):
        module = "." * statement.level + (statement.module or "")
        return [Import(module, alias.name, alias.asname) for alias in statement.names]
    if isinstance(statement, ast.Import):
        return [Import("", alias.name, alias.asname) for alias in statement.names]
    return []


def _place(new: Import) -> tuple[int, int, str]:
    """Where a statement belongs: its section, `import` before `from`, the module's name."""
    module = new.module or new.name
    return _section(new), bool(new.module), module.casefold()


def _section(new: Import) -> int:
    """As ruff orders them: `__future__`, standard library, libraries, the project, relative."""
    root = _root(new)
    if root == "__future__":
        return 0
    if root in FIRST_PARTY:
        return 3
    if root in sys.stdlib_module_names:
        return 1
    return 2 if root else 4


def _root(new: Import) -> str:
    return (new.module or new.name).split(".")[0]


def add_imports(source: str, wanted: list[Import]) -> str:
    """Import these names at the top of a file, each where ruff would sort it."""
    for new in dict.fromkeys(wanted):
        source = _add_import(source, new)
    return source


def _add_import(source: str, new: Import) -> str:
    body = ast.parse(source).body
    text = Text(source)
    statements = [s for s in body if isinstance(s, ast.Import | ast.ImportFrom)]
    if any(new in imports_of(statement) for statement in statements):
        return source
    for statement in statements:
        imports = imports_of(statement)
        if new.module and imports[0].module == new.module and "#" not in text.of(statement):
            text.replace(statement, statement, "\n".join(render_imports([*imports, new])))
            return text.result()
    header, (line,) = _header(body), render_imports([new])
    places = [_place(imports_of(statement)[0]) for statement in header]
    section = _place(new)[0]
    # Behind those that ruff sorts before it; `below` is the first that it does not.
    below = next((i for i, place in enumerate(places) if place > _place(new)), len(header))
    if not header:
        _begin_imports(text, body, line)
    elif below == len(header) or (below and places[below - 1][0] == section):
        gap = "" if places[below - 1][0] == section else "\n"
        end = text.line_end(text.end(header[below - 1]))
        text.edits.append((end, end, f"\n{gap}{line}"))
    else:
        gap = "" if places[below][0] == section else "\n"
        start = text.start(header[below])
        text.edits.append((start, start, f"{line}\n{gap}"))
    return text.result()


def remove_import(source: str, old: Import) -> str:
    text = Text(source)
    for statement in ast.parse(source).body:
        imports = imports_of(statement)
        if old in imports and isinstance(statement, ast.ImportFrom):
            rest = render_imports([new for new in imports if new != old], statement.col_offset)
            text.replace_statement(statement, rest)
            return text.result()
    return source


def _header(body: list[ast.stmt]) -> list[ast.stmt]:
    """The import statements at the top of a file."""
    found: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            found.append(statement)
        elif found or not _is_docstring(statement):
            break
    return found


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _begin_imports(text: Text, body: list[ast.stmt], line: str) -> None:
    if body and _is_docstring(body[0]):
        end = text.end(body[0])
        text.edits.append((end, end, f"\n\n{line}"))
    else:
        start = text.start(body[0]) if body else len(text.data)
        text.edits.append((start, start, f"{line}\n\n\n" if body else f"{line}\n"))


# ---- sorting ----------------------------------------------------------------------------------


def is_tidy(source: str) -> bool:
    return tidy_imports(source) == source


def tidy_imports(source: str) -> str:
    """Sort and join neighboring imports of the project's own modules, where no comment is lost."""
    text = Text(source)
    for scope in ast.walk(ast.parse(source)):
        for statements in (getattr(scope, name, None) for name in ("body", "orelse", "finalbody")):
            if isinstance(statements, list):
                for run in _runs(text, statements):
                    _tidy_run(text, run)
    return text.result()


def _runs(text: Text, statements: list[ast.stmt]) -> list[list[ast.stmt]]:
    """Import statements of the project on adjacent lines, whose comments can be kept."""
    groups: list[list[ast.stmt]] = [[]]
    for statement in statements:
        imports = imports_of(statement)
        fits = (
            bool(imports)
            and _root(imports[0]) in FIRST_PARTY
            and comments_of(text, statement) is not None
        )
        previous = groups[-1][-1] if groups[-1] else None
        if not fits:
            groups.append([])
        elif previous is not None and statement.lineno != (previous.end_lineno or 0) + 1:
            groups.append([statement])
        else:
            groups[-1].append(statement)
    return [group for group in groups if group]


def comments_of(text: Text, statement: ast.stmt) -> dict[Import, str] | None:
    """The comments behind the names of a statement; None if there are others."""
    lines = text.lines(statement.lineno, statement.end_lineno or statement.lineno)
    found = comments_of_names(text, statement)
    return found if len(found) == sum("#" in line for line in lines) else None


def comments_of_names(text: Text, statement: ast.stmt) -> dict[Import, str]:
    lines = text.lines(statement.lineno, statement.end_lineno or statement.lineno)
    found = {}
    if isinstance(statement, ast.ImportFrom) and statement.end_lineno != statement.lineno:
        for alias, new in zip(statement.names, imports_of(statement), strict=True):
            rest = lines[alias.lineno - statement.lineno].encode()[alias.end_col_offset or 0 :]
            comment = rest.decode().lstrip(",").rstrip()
            if comment.lstrip().startswith("#"):
                found[new] = f"  {comment.lstrip()}"
    return found


def _tidy_run(text: Text, run: list[ast.stmt]) -> None:
    comments: dict[Import, str] = {}
    for statement in run:
        comments |= comments_of(text, statement) or {}
    found = sorted({new for statement in run for new in imports_of(statement)}, key=_place)
    statements = [
        line
        for _, same in groupby(found, key=_place)
        for line in render_imports(list(same), run[0].col_offset, comments)
    ]
    indent = " " * run[0].col_offset
    new = f"\n{indent}".join(statements)
    if new != text.of(run[0], run[-1]):
        text.replace(run[0], run[-1], new)


# ---- names ------------------------------------------------------------------------------------


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that is bound anywhere in a file, as often as it is bound."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(name, ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                yield name
            case ast.arg(name) | ast.ExceptHandler(_, str(name)):
                yield name
            case ast.MatchAs(_, str(name)) | ast.MatchStar(str(name)):
                yield name
            case ast.Global(names) | ast.Nonlocal(names):
                yield from names
    yield from imported_names(tree)


def imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


def defined_names(tree: ast.Module) -> Iterator[str]:
    """What a module itself defines, without what it imports."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                yield name
            case ast.Assign(targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(ast.Name(name)):
                yield name
