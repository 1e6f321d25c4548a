"""What a text defines, and under which names: of two definitions of one name, the later wins unseen."""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator

# What a line defines: a function, a class, a table, an entry of a list or mapping, a key or setting.
DEFINED = re.compile(
    r"(?:async )?(?:def|class) (?P<code>\w+)"
    r"|(?P<table>\[[^][]+\])$"
    r"|[\"'](?P<text>[^\"'<>=!~\[; ]+)"
    r"|(?P<key>[\w.-]+)(?:\[[\w,-]+\])?\s*(?::|[=<>~!]?=|[<>]|$)"
)


def defined(lines: list[str]) -> Iterator[str]:
    said = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    outermost = min((indentation(line) for line in said), default=0)
    for line in said:
        found = DEFINED.match(line.strip())
        if found and indentation(line) == outermost:
            # A library may be spelt in many ways (PEP 503).
            yield re.sub(r"[-_.]+", "-", next(name for name in found.groups() if name)).casefold()


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_sound(file: str, text: str) -> bool:
    """Whether the merged text still is what its name says."""
    try:
        if file.endswith(".toml"):
            tomllib.loads(text)
        if file.endswith(".py"):
            ast.parse(text)
    except (tomllib.TOMLDecodeError, SyntaxError):
        return False
    return True


def twice_bound(file: str, merged: str, *sides: str) -> set[str]:
    """Names of Python that the merged text binds in one scope more than once, and oftener than a side."""
    if not file.endswith(".py"):
        return set()
    try:
        now, *before = (Counter(bindings(ast.parse(text))) for text in (merged, *sides))
    except SyntaxError:
        return set()
    return {
        name
        for name, times in now.items()
        if times > 1 and all(times > counts[name] for counts in before)
    }


def bindings(scope: ast.AST, prefix: str = "") -> Iterator[str]:
    """Functions, classes, imports, annotated names and constants, each as often as a scope binds it."""
    for node in getattr(scope, "body", []):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not shares_its_name(node):
                yield f"{prefix}{node.name}"
            case ast.ClassDef():
                yield f"{prefix}{node.name}"
                yield from bindings(node, f"{prefix}{node.name}.")
            case ast.Import() | ast.ImportFrom():
                yield from (f"{prefix}{alias.asname or alias.name}" for alias in node.names)
            case ast.AnnAssign(ast.Name(name)) | ast.Assign([ast.Name(name)]):
                yield f"{prefix}{name}"


def shares_its_name(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is one of several by design: a property's setter, say, or an overload."""
    several = {"deleter", "getter", "overload", "register", "setter"}
    return any(
        getattr(part, "attr", getattr(part, "id", "")) in several
        for decorator in function.decorator_list
        for part in ast.walk(decorator)
    )
