"""Places in the files of the owner, where a generator inserts something."""

import ast
from collections.abc import Callable

# A line, from 1, and a column in bytes.
Spot = tuple[int, int]


def after_docstring(tree: ast.Module) -> int:
    """After the docstring, and after what must come before every other import."""
    has_docstring = ast.get_docstring(tree, clean=False) is not None
    head = tree.body[:1] if has_docstring else []
    head += [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    return (head[-1].end_lineno or 0) if head else 0


def after_imports_from(package: str) -> Callable[[ast.Module], int | None]:
    """After the last `from package... import ...`."""

    def find(tree: ast.Module) -> int | None:
        lines = [
            node.end_lineno
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package)
        ]
        return max(filter(None, lines), default=None)

    return find


def after_calls_of(function: str) -> Callable[[ast.Module], int | None]:
    """After the last statement that is `v1.include_router(...)`, as `function` names it."""

    def find(tree: ast.Module) -> int | None:
        lines = [
            node.end_lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == function
        ]
        return max(filter(None, lines), default=None)

    return find


def definition(tree: ast.Module, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    return None


def at_end_of_class(name: str) -> Callable[[ast.Module], int | None]:
    def find(tree: ast.Module) -> int | None:
        found = definition(tree, name)
        return found.body[-1].end_lineno if found else None

    return find


def at_end_of_set(name: str) -> Callable[[ast.Module], int | None]:
    """After the last element of `NAME = {...}`, which is on a separate line."""

    def find(tree: ast.Module) -> int | None:
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == name
                and isinstance(node.value, ast.Set)
                and node.value.elts[-1].end_lineno != node.value.end_lineno
            ):
                return node.value.elts[-1].end_lineno
        return None

    return find


def before(name: str) -> Callable[[ast.Module], int | None]:
    """Before a class or a function."""

    def find(tree: ast.Module) -> int | None:
        found = definition(tree, name)
        return min(part.lineno for part in (found, *found.decorator_list)) - 1 if found else None

    return find


def after_fields_of(name: str) -> Callable[[ast.Module], int | None]:
    """After the last `field: type` of a class, or at its end if it has none."""

    def find(tree: ast.Module) -> int | None:
        body = getattr(definition(tree, name), "body", [])
        fields = [part for part in body if isinstance(part, ast.AnnAssign)]
        return (fields or body)[-1].end_lineno if body else None

    return find


def after_assignment(target: str, name: str) -> Callable[[ast.Module], int | None]:
    """After `target = ...` in a class."""

    def find(tree: ast.Module) -> int | None:
        value = assigned_in(name, target)(tree)
        return value.end_lineno if value else None

    return find


def assigned_in(name: str, target: str) -> Callable[[ast.Module], ast.expr | None]:
    """The value of `target = ...`, or the type of `target: ...`, in a class."""

    def find(tree: ast.Module) -> ast.expr | None:
        for part in getattr(definition(tree, name), "body", []):
            if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == target:
                return part.value
            if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == target:
                return part.annotation
        return None

    return find


def first_constraint_of(name: str) -> Callable[[ast.Module], Spot | None]:
    """Before the first element of `__table_args__ = (...)`."""

    def find(tree: ast.Module) -> Spot | None:
        match assigned_in(name, "__table_args__")(tree):
            case ast.Tuple(elts=[first, *_]):
                return first.lineno, first.col_offset
        return None

    return find


def last_order_of(name: str) -> Callable[[ast.Module], Spot | None]:
    """After the last value of `order: Literal[...]`."""

    def find(tree: ast.Module) -> Spot | None:
        match assigned_in(name, "order")(tree):
            case ast.Subscript(slice=ast.Tuple(elts=[*_, last])):
                return last.end_lineno or 0, last.end_col_offset or 0
        return None

    return find


def last_value_of_a_body(tree: ast.Module) -> Spot | None:
    """After the last value of the dictionary that `make` returns in a test."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name="make", body=[*_, ast.Return(value=ast.Dict(values=values))]):
                return (values[-1].end_lineno or 0, values[-1].end_col_offset or 0)
    return None
