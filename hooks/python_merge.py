"""Merges Python files statement by statement, where a merge of lines is a conflict.

The result is the template's new text. Into it go the owner's statements, each after the neighbor that
it had, and the owner's values of statements that the template left alone. What the template has moved
to another file is merged there. If anything is ambiguous, nothing changes and the conflict stays.
"""

import ast
import builtins
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from tools.python_source import Import, Text, add_imports, bound_names, imports_of, remove_import

# Finds the file of a name's new place, and the name there.
Locate = Callable[[str, str], tuple[str, str] | None]
Scoped = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.With | ast.AsyncWith | ast.If

# How many changed lines are shown of one place.
MOST_LINES = 40

# The first part of the keys of statements that bind no name.
UNNAMED = {"code", "if", "with"}


class UnsureError(Exception):
    """The owner's change has no single place in the template's new text."""


@dataclass(eq=False)
class Item:
    """A statement with the comments above it, or comments that stand alone."""

    text: Text
    node: ast.stmt | None
    first_line: int
    last_line: int
    key: tuple[str, ...] = ()
    comments: list[str] = field(default_factory=list)
    blank_lines: int = 0

    def lines(self, first: int, last: int) -> str:
        start, end = self.text.line_start(first), self.text.line_start(last + 1)
        return self.text.data[start:end].decode("utf-8").rstrip("\r\n")

    @property
    def source(self) -> str:
        """The whole lines, comments included."""
        return self.lines(self.first_line, self.last_line)

    @property
    def code_line(self) -> int:
        return self.first_line + len(self.comments)

    @property
    def code(self) -> str:
        return self.lines(self.code_line, self.last_line)

    def is_same(self, other: "Item") -> bool:
        """Whether both have the same code, comments above it aside."""
        return self.code.strip() == other.code.strip()

    @property
    def body(self) -> list[ast.stmt]:
        """The statements of a class or a function; of another statement, none."""
        if not isinstance(self.node, Scoped) or (
            isinstance(self.node, ast.If) and self.node.orelse
        ):
            return []
        return self.node.body if self.node.body[0].lineno > self.node.lineno else []

    @property
    def header(self) -> str:
        return self.lines(self.code_line, self.items[0].first_line - 1).rstrip()

    @property
    def items(self) -> list["Item"]:
        return items_of(self.text, self.body, self.last_line)


def items_of(text: Text, body: list[ast.stmt], last_line: int) -> list[Item]:
    """The statements of a scope and the comments between them, in order."""
    lines = text.source.split("\n")
    found: list[Item] = []
    done = 0
    for node in body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        if first <= done:
            raise UnsureError("two statements on one line")
        done = done or _first_comment(lines, first, node.col_offset) - 1
        found += _with_comments(text, lines, node, (done + 1, first, node.end_lineno or first))
        done = node.end_lineno or first
    if body and body[0].col_offset == 0:
        found += _comment_blocks(text, lines, done + 1, len(lines))
    counts: dict[tuple[str, ...], int] = {}
    for item in found:
        name = _key(item)
        counts[name] = counts.get(name, 0) + 1
        item.key = (*name, str(counts[name]))
    return found


def _first_comment(lines: list[str], first: int, column: int) -> int:
    """The first line of the comments above the first statement of a scope."""
    line = first
    while line > 1:
        text = lines[line - 2]
        if text.strip() and not text.startswith(" " * column + "#"):
            break
        line -= 1
    while line < first and not lines[line - 1].strip():
        line += 1
    return line


def _with_comments(
    text: Text, lines: list[str], node: ast.stmt, span: tuple[int, int, int]
) -> list[Item]:
    start, first, last = span
    above = first
    while above > start and lines[above - 2].lstrip().startswith("#"):
        above -= 1
    item = Item(text, node, above, last)
    item.comments = [line.strip() for line in lines[above - 1 : first - 1]]
    blanks = above - 1
    while blanks >= start and not lines[blanks - 1].strip():
        blanks -= 1
    item.blank_lines = above - 1 - blanks
    return [*_comment_blocks(text, lines, start, blanks), item]


def _comment_blocks(text: Text, lines: list[str], start: int, end: int) -> list[Item]:
    """Comments with a blank line below."""
    found: list[Item] = []
    for number in range(start, end + 1):
        if not lines[number - 1].lstrip().startswith("#"):
            continue
        if found and found[-1].last_line == number - 1:
            found[-1].last_line = number
        else:
            found.append(Item(text, None, number, number, blank_lines=1))
    return found


def _key(item: Item) -> tuple[str, ...]:
    """What makes a statement the same one in another version of the file."""
    match item.node:
        case None:
            return ("#", "\n".join(line.strip() for line in item.source.splitlines()))
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return (name,)
        case ast.Assign([target]) | ast.AnnAssign(target) | ast.AugAssign(target):
            return (ast.unparse(target),)
        case ast.If(test):
            return ("if", ast.unparse(test))
        case ast.With(items) | ast.AsyncWith(items):
            return ("with", *map(ast.unparse, items))
        case ast.Expr(ast.Constant(str())):
            return ("docstring",)
        case _:
            return ("code", ast.unparse(item.node))


@dataclass
class Merge:
    """One owner's file, with every file of the template that its changes go to."""

    # The name of the owner's module, to ask for the new place of what it defined.
    module: str
    read: Callable[[str], str]
    locate: Locate
    targets: dict[str, Text] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # The class or function whose statements are being merged.
    scope: str = ""

    def target(self, file: str) -> Text:
        if file not in self.targets:
            self.targets[file] = Text(self.read(file))
        return self.targets[file]

    def run(self, file: str, before: str, yours: str, template: str | None) -> dict[str, str]:
        """The merged files. `template` is None if the template no longer has the file."""
        if template is not None:
            self.targets[file] = Text(template)
        old, mine = (module_items(Text(text)) for text in (before, yours))
        new = module_items(self.targets[file]) if template is not None else None
        if new and add_permission_members(old, mine, new):
            old, mine = ([i for i in side if i.key not in PERMISSIONS_WERE] for side in (old, mine))
        self.merge_scope(file, old, mine, new)
        merged = {name: text.result() for name, text in self.targets.items()}
        if template is not None:
            merged[file] = merge_imports(before, yours, merged[file])
            merged[file], _ = restore_names(self.module, merged[file], yours, self.locate)
        for name, result in merged.items():
            ast.parse(result, name)
        return merged

    # ---- scopes

    def merge_scope(
        self, file: str, before: list[Item], yours: list[Item], new: list[Item] | None
    ) -> None:
        """Bring the changes of a scope into the new one; None if the scope itself is gone."""
        old, theirs = _by_key(before), _by_key(new or [])
        kept = {item.key for item in yours}
        if _order(before, kept) != _order(yours, old.keys()):
            raise UnsureError(f"you moved a part of {self.scope or file}")
        for item in before:
            if item.key not in kept:
                if new is None:
                    raise UnsureError(f"you removed {item.key[0]}, which the template moved")
                self.remove(item, theirs.get(item.key))
        for index, item in enumerate(yours):
            if item.key not in old:
                if new is None:
                    raise UnsureError(f"the scope of {item.key[0]} is gone")
                # merge_imports() adds the owner's imports.
                if not _is_import(item):
                    self.add(item, yours[:index], yours[index + 1 :], new)
            elif is_changed(old[item.key], item):
                self.merge_changed(file, old[item.key], item, theirs.get(item.key))

    def merge_changed(self, file: str, old: Item, item: Item, new: Item | None) -> None:
        edits = {name: [*text.edits] for name, text in self.targets.items()}
        notes = [*self.notes]
        try:
            if new is not None:
                self.merge_item(file, old, item, new)
            else:
                self.merge_moved(old, item)
        except UnsureError:
            if not file.startswith("tests/") or (new is not None and not is_test(item)):
                raise
            # The template's tests are about its own code, so they may go.
            for name, text in self.targets.items():
                text.edits[:] = edits.get(name, [])
            what = "changed" if new is not None else "no longer has"
            notes += [f"{file}: the template {what} {item.key[0]}. Your changes of it are gone:"]
            self.notes = [*notes, *changed_lines(old.source, item.source)]

    def remove(self, item: Item, new: Item | None) -> None:
        """What the owner removed goes, if the template left it as it was."""
        if item.node is None or imports_of(item.node):
            return
        if new is None:
            if item.key[0] in UNNAMED:
                raise UnsureError(f"both changed or removed `{item.code.strip()[:40]}`")
            return
        if not item.is_same(new) and not is_test(item):
            raise UnsureError(f"you removed {item.key[0]}, which the template changed")
        start = new.text.line_start(new.first_line)
        new.text.edits.append((start, new.text.line_start(new.last_line + 1), ""))

    def add(self, item: Item, above: list[Item], below: list[Item], new: list[Item]) -> None:
        theirs = _by_key(new)
        if item.key in theirs:
            if not item.is_same(theirs[item.key]):
                raise UnsureError(f"both added {item.key[0]}")
            return
        if item.key == ("docstring", "1"):
            raise UnsureError("a docstring was added")
        previous = next((theirs[o.key] for o in above[::-1] if _is_neighbor(o, theirs)), None)
        following = next((theirs[o.key] for o in below if _is_neighbor(o, theirs)), None)
        if previous is not None and not _is_import(previous):
            insert_after(item, previous, new)
        elif following is not None and not _is_import(following):
            insert_before(item, following, new)
        elif isinstance(new[-1].node, ast.Return):
            insert_before(item, new[-1], new)
        else:
            insert_after(item, new[-1], new)

    # ---- statements

    def merge_moved(self, old: Item, item: Item) -> None:
        """The owner changed something that the template has moved."""
        is_named = item.node is not None and not _is_import(item)
        place = self.locate(self.module, item.key[0]) if is_named else None
        if place is None:
            raise UnsureError(f"{item.key[0]} is gone")
        file, name = place
        found = [other for other in module_items(self.target(file)) if other.key == (name, "1")]
        if not found:
            raise UnsureError(f"{item.key[0]} is gone")
        self.merge_item(file, old, item, found[0])
        self.notes.append(
            f"{file}: has your change of {item.key[0]}, which the template moved there"
        )

    def merge_item(self, file: str, old: Item, item: Item, new: Item) -> None:
        self.merge_comments(old, item, new)
        if item.is_same(old) or item.is_same(new):
            return
        if old.body and item.body and new.body:
            self.merge_header(old, item, new)
            outer, self.scope = self.scope, f"{self.scope}{item.key[0]}."
            self.merge_scope(file, old.items, item.items, new.items)
            self.scope = outer
        elif new.is_same(old):
            check_depth(item, new)
            replace_lines(new, new.code_line, new.last_line, item.code)
        else:
            self.merge_values(file, old, item, new)

    def merge_comments(self, old: Item, item: Item, new: Item) -> None:
        added = [comment for comment in item.comments if comment not in old.comments]
        added = [comment for comment in added if comment not in new.comments]
        if added:
            indent = " " * _column(new)
            start = new.text.line_start(new.code_line)
            text = "".join(f"{indent}{comment}\n" for comment in added)
            new.text.edits.append((start, start, text))

    def merge_header(self, old: Item, item: Item, new: Item) -> None:
        if item.header.strip() in {old.header.strip(), new.header.strip()}:
            return
        if new.header.strip() != old.header.strip():
            raise UnsureError(f"both changed how {item.key[0]} begins")
        check_depth(item, new)
        end = new.code_line + new.header.count("\n")
        replace_lines(new, new.code_line, end, item.header)

    def merge_values(self, file: str, old: Item, item: Item, new: Item) -> None:
        values = [getattr(part.node, "value", None) for part in (old, item, new)]
        if _annotation(old) != _annotation(item):
            raise UnsureError(f"you changed the annotation of {item.key[0]}")
        if _comments_inside(item) - _comments_inside(old):
            raise UnsureError(f"{item.key[0]} has comments of yours")
        match values:
            case [ast.Constant(str()), ast.Constant(str()) as yours, ast.Constant(str()) as theirs]:
                if item.key[0] != "docstring":
                    # Both reworded a text: the owner's wording is a decision.
                    new.text.replace(theirs, theirs, item.text.of(yours))
                    self.notes.append(f"{file}: kept your text of {self.scope}{item.key[0]}")
                    return
            case [ast.expr() as before, ast.expr() as yours, ast.expr() as theirs]:
                elements = [elements_of(value) for value in (before, yours, theirs)]
                if None not in elements and _container(before) == _container(yours):
                    merge_elements(item, new, theirs, *(e or [] for e in elements))
                    return
        raise UnsureError(f"both changed {item.key[0]}")


def _annotation(item: Item) -> str:
    return ast.unparse(getattr(item.node, "annotation", None) or ast.Constant(None))


def _container(value: ast.expr) -> str:
    return ast.unparse(value.func) if isinstance(value, ast.Call) else type(value).__name__


def _comments_inside(item: Item) -> set[str]:
    return {line.partition("#")[2].strip() for line in item.code.splitlines() if "#" in line}


def module_items(text: Text) -> list[Item]:
    tree = ast.parse(text.source)
    return items_of(text, tree.body, text.source.count("\n") + 1)


def is_changed(old: Item, item: Item) -> bool:
    return old.node is not None and (not item.is_same(old) or old.comments != item.comments)


def is_test(item: Item) -> bool:
    """Whether a statement of a module is a test function."""
    return item.key[0].startswith("test_") and _column(item) == 0


def changed_lines(before: str, after: str) -> list[str]:
    """What somebody changed, as `-` and `+` lines to show."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    found = [f"    {line}" for line in lines if not line.startswith(("---", "+++", "@@"))]
    more = len(found) - MOST_LINES
    return found if more <= 0 else [*found[:MOST_LINES], f"    ... and {more} more lines"]


def own_part(before: str, yours: str) -> tuple[str, str]:
    """Of a Python file, what the owner added with what it uses, and the rest without imports."""
    text = Text(yours)
    known = {item.key for item in module_items(Text(before))}
    items = [item for item in module_items(text) if not _is_import(item)]
    wanted = {item.key for item in items if item.key not in known and item.key[0] != "docstring"}
    rest = "\n".join(item.source for item in items if item.key not in wanted)
    if before == yours:
        return "", rest
    if not any(item.node is not None for item in items if item.key in wanted):
        return "", yours
    while True:
        names = {name for item in items if item.key in wanted for name in used_names(item)}
        more = {item.key for item in items if item.key[0] in {*names, "pytestmark"}} - wanted
        if not more:
            break
        wanted |= more
    own = "\n\n\n".join(item.source for item in items if item.key in wanted)
    imports = [new for new in top_imports(yours) if local_name(new) in names]
    return add_imports(f"{own}\n", imports), rest


def used_names(item: Item) -> Iterator[str]:
    """Also the fixtures that a test takes."""
    for node in ast.walk(item.node) if item.node is not None else ():
        match node:
            case ast.Name(name) | ast.arg(name) | ast.Constant(str(name)):
                yield name


def _is_import(item: Item) -> bool:
    return item.node is not None and bool(imports_of(item.node))


def _order(items: list[Item], keys: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The order of these statements. That of imports means nothing."""
    return [item.key for item in items if item.key in keys and not _is_import(item)]


def _by_key(items: list[Item]) -> dict[tuple[str, ...], Item]:
    return {item.key: item for item in items}


def _is_neighbor(item: Item, theirs: Collection[tuple[str, ...]]) -> bool:
    return item.key in theirs and item.key[0] != "docstring"


def _column(item: Item) -> int:
    if item.node is not None:
        return item.node.col_offset
    return len(item.source) - len(item.source.lstrip())


def check_depth(item: Item, new: Item) -> None:
    """Indenting a statement could change its strings."""
    if _column(item) != _column(new):
        raise UnsureError("the depth differs")


def replace_lines(item: Item, first: int, last: int, text: str) -> None:
    end = item.text.line_end(item.text.line_start(last))
    item.text.edits.append((item.text.line_start(first), end, text))


# ---- insertion --------------------------------------------------------------------------------


def insert_after(item: Item, previous: Item, new: list[Item]) -> None:
    index = new.index(previous)
    while index + 1 < len(new) and _is_import(new[index]) and _is_import(new[index + 1]):
        index += 1
    following = new[index + 1] if index + 1 < len(new) else None
    _insert(item, new[index], following)


def insert_before(item: Item, following: Item, new: list[Item]) -> None:
    index = new.index(following)
    _insert(item, new[index - 1] if index else None, following)


def _insert(item: Item, previous: Item | None, following: Item | None) -> None:
    """Put a statement between two of a scope, with the blank lines that a formatter wants."""
    neighbor = previous or following
    if neighbor is None:
        raise UnsureError("the scope is empty")
    check_depth(item, neighbor)
    text, source = neighbor.text, item.source
    if previous is not None:
        at = text.line_start(previous.last_line + 1)
        # The owner's statements keep their order: those at one place follow each other.
        earlier = [edit for edit in text.edits if edit[:2] == (at, at)]
        above = "\n" * _gap(previous, item)
        below = "" if following is None else _extra_gap(item, previous, following)
        if earlier:
            text.edits.remove(earlier[-1])
            gap = "\n" * max(item.blank_lines, _least_gap(item, item))
            above = earlier[-1][2].rstrip("\n") + "\n" + gap
        missing_end = "" if text.data[:at].endswith(b"\n") else "\n"
        text.edits.append((at, at, f"{missing_end}{above}{source}\n{below}"))
        return
    assert following is not None  # noqa: S101
    at = text.line_start(following.first_line)
    text.edits.append((at, at, f"{source}\n" + "\n" * _gap(item, following)))


def _gap(above: Item, below: Item) -> int:
    return max(_least_gap(above, below), min(below.blank_lines, 2))


def _least_gap(above: Item, below: Item) -> int:
    """Blank lines around functions and classes: two in a module, one in a class."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(above.node, definitions) or isinstance(below.node, definitions):
        return 2 if _column(below) == 0 else 1
    if above.key[:1] == ("docstring",):
        return 1
    return 1 if _is_import(above) != _is_import(below) else 0


def _extra_gap(item: Item, previous: Item, following: Item) -> str:
    """The blank lines that the new neighbor below needs besides those that it has."""
    return "\n" * max(0, _least_gap(item, following) - following.blank_lines)


# ---- lists, sets and dictionaries -------------------------------------------------------------


def elements_of(value: ast.expr) -> list[tuple[str, ast.expr, ast.expr]] | None:
    """The elements of a literal: what identifies each, and its first and last expression."""
    match value:
        case ast.List(elements) | ast.Tuple(elements) | ast.Set(elements):
            return [(ast.unparse(element), element, element) for element in elements]
        case ast.Dict(keys, values) if None not in keys:
            return [
                (ast.unparse(key), key, item)
                for key, item in zip(keys, values, strict=True)
                if key is not None
            ]
        case ast.Call(_, [argument], []):
            return elements_of(argument)
    return None


def merge_elements(
    item: Item,
    new: Item,
    value: ast.expr,
    old: list[tuple[str, ast.expr, ast.expr]],
    yours: list[tuple[str, ast.expr, ast.expr]],
    theirs: list[tuple[str, ast.expr, ast.expr]],
) -> None:
    """Add the elements that the owner added behind the template's last one."""
    kept = [(key, ast.unparse(last)) for key, _, last in yours if key in {k for k, _, _ in old}]
    if kept != [(key, ast.unparse(last)) for key, _, last in old]:
        raise UnsureError(f"you changed, moved or removed a part of {item.key[0]}")
    known = {key for key, _, _ in [*old, *theirs]}
    added = [item.text.of(first, last) for key, first, last in yours if key not in known]
    if not theirs:
        raise UnsureError(f"{item.key[0]} is empty")
    last = theirs[-1][2]
    if value.end_lineno == value.lineno:
        new.text.edits.append((new.text.end(last),) * 2 + ("".join(f", {e}" for e in added),))
        return
    indent = " " * theirs[-1][1].col_offset
    line_end = new.text.data.index(b"\n", new.text.end(last)) + 1
    rest = new.text.data[new.text.end(last) : line_end]
    if not rest.lstrip().startswith(b","):
        raise UnsureError(f"{item.key[0]} has no comma at its end")
    lines = "".join(f"{indent}{element},\n" for element in added)
    new.text.edits.append((line_end, line_end, lines))


# ---- imports ----------------------------------------------------------------------------------


def merge_imports(before: str, yours: str, template: str) -> str:
    """The template's text with the owner's imports, also where they bind a name to something else."""
    old, mine, new = (top_imports(text) for text in (before, yours, template))
    added = [found for found in mine if found not in old]
    text = Text(yours)
    for statement in ast.parse(yours).body:
        last = text.line_start(statement.end_lineno or statement.lineno)
        has_comment = b"#" in text.data[last : text.line_end(last)]
        if has_comment and set(imports_of(statement)) & set(added):
            raise UnsureError("an import of yours has a comment")
    local_names = {found.asname or found.name for found in added}
    for found in new:
        if found in old and found not in mine and (found.asname or found.name) in local_names:
            template = remove_import(template, found)
    return add_imports(template, added)


def top_imports(source: str) -> list[Import]:
    return [new for statement in ast.parse(source).body for new in imports_of(statement)]


def restore_names(module: str, merged: str, yours: str, locate: Locate) -> tuple[str, list[str]]:
    """Bind again what the owner's code uses of the old file and the template's new one lacks.

    UnsureError if that is more than an import or a constant.
    """
    restored: list[str] = []
    while missing := unbound_names(merged) & set(bound_names(ast.parse(yours))) - set(restored):
        name = min(missing)
        restored.append(name)
        imports = [new for new in top_imports(yours) if local_name(new) == name]
        if imports:
            merged = add_imports(merged, imports)
        elif place := locate(module, name):
            file, new_name = place
            target = file.removesuffix(".py").replace("/", ".")
            alias = name if new_name != name else None
            merged = add_imports(merged, [Import(target, new_name, alias)])
        else:
            merged = restore_constant(name, merged, yours)
    return merged, restored


def restore_constant(name: str, merged: str, yours: str) -> str:
    """Put an assignment of the old file below the imports of the new one."""
    found = [item for item in module_items(Text(yours)) if item.key == (name, "1")]
    text = Text(merged)
    new = module_items(text)
    imports = [item for item in new if _is_import(item)]
    if not found or not isinstance(found[0].node, ast.Assign | ast.AnnAssign) or not imports:
        raise UnsureError(f"your code uses {name}, which is gone")
    insert_after(found[0], imports[0], new)
    return text.result()


def unbound_names(source: str) -> set[str]:
    tree = ast.parse(source)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return used - set(bound_names(tree)) - set(dir(builtins)) - {"__file__"}


def local_name(new: Import) -> str:
    return new.asname or (new.name if new.module else new.name.split(".")[0])


# ---- permissions ------------------------------------------------------------------------------

# Until release 0.6.0, a permission was an entry of this Literal and of this dictionary.
PERMISSIONS_WERE = {("PermissionName", "1"), ("PERMISSIONS", "1")}


def add_permission_members(before: list[Item], yours: list[Item], new: list[Item]) -> bool:
    """Make members of the owner's permissions; whether the template went from entries to members."""
    found = [item for item in new if item.key == ("PermissionName", "1")]
    if not found or not isinstance(found[0].node, ast.ClassDef):
        return False
    if not {item.key for item in before} >= PERMISSIONS_WERE:
        return False
    old, now = (_declared_permissions(items) for items in (before, yours))
    if not old.keys() <= now.keys():
        raise UnsureError("you removed a permission")
    if any(now[name] != text for name, text in old.items()):
        raise UnsureError("you changed the text of a permission")
    if any("#" in item.code for item in yours if item.key in PERMISSIONS_WERE):
        raise UnsureError("a permission of yours has a comment")
    members = [item for item in found[0].items if isinstance(item.node, ast.Assign)]
    for name, text in now.items():
        if name not in old:
            member = re.sub(r"\W+", "_", name).upper()
            line = f"{' ' * _column(members[-1])}{member} = {json.dumps(name)}, {text}\n"
            end = members[-1].text.line_start(members[-1].last_line + 1)
            members[-1].text.edits.append((end, end, line))
    return True


def _declared_permissions(items: list[Item]) -> dict[str, str]:
    """Each name in the Literal with the source of its text in the dictionary."""
    nodes = {item.key: (item.text, item.node) for item in items}
    text, texts = nodes[("PERMISSIONS", "1")]
    _, names = nodes[("PermissionName", "1")]
    if not isinstance(names, ast.Assign) or not isinstance(names.value, ast.Subscript):
        raise UnsureError("PermissionName is not a Literal")
    if not isinstance(texts, ast.Assign | ast.AnnAssign) or not isinstance(texts.value, ast.Dict):
        raise UnsureError("PERMISSIONS is not a dictionary")
    known = {
        ast.literal_eval(key): text.of(value)
        for key, value in zip(texts.value.keys, texts.value.values, strict=True)
        if key is not None
    }
    declared = ast.literal_eval(names.value.slice)
    declared = (declared,) if isinstance(declared, str) else declared
    return {name: known.get(name, '""') for name in declared}
