"""What breaks the code of owners since a release that listed the names it uses, found by griffe."""

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

from tools.interface import Interface
from tools.moved_names import Table

DEFAULT_CHANGED = griffe.BreakageKind.PARAMETER_CHANGED_DEFAULT.value


class Code:
    """The code of a project, read without importing it."""

    def __init__(self, project: Path) -> None:
        self._loader = griffe.GriffeLoader(search_paths=[project], allow_inspection=False)
        for package in ("app", "tests"):
            if (project / package).is_dir():
                # Otherwise griffe would prefer a folder of this name where the tests run.
                self._loader.load(package, try_relative_path=False)

    def find(self, name: str) -> griffe.Object | None:
        try:
            found = self._loader.modules_collection[name]
            return found.final_target if isinstance(found, griffe.Alias) else found
        except (KeyError, griffe.AliasResolutionError):
            return None

    def warns(self, place: str, successor: str) -> bool:
        """Whether a deprecated name, or the function of a parameter, warns and names what to use."""
        name = place.partition("(")[0]
        found = self.find(name)
        if not isinstance(found, griffe.Class | griffe.Function):
            # A constant or an alias: the `__getattr__` of its module warns.
            found = self.find(f"{name.rpartition('.')[0]}.__getattr__")
        source = found.source if found else ""
        return all(text in source for text in ("DeprecationWarning", f'"{name}', successor))


def breaking_changes(
    old: Code, new: Code, listed: Interface, table: Table, deprecated: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """What changed of the names that a release listed: place, and what broke there."""
    for name in listed.names():
        target = table.target(name)
        before, after = old.find(name), new.find(target)
        if before and after:
            # The table can say how the use of a name that it moves has to change.
            if name not in table.changed:
                yield from _compare(name, before, after)
        elif name in deprecated and new.warns(name, deprecated[name]):
            continue
        elif not after and name not in table.hints:
            yield name, "removed" if target == name else f"moved to {target}, which does not exist"


def _compare(name: str, old: griffe.Object, new: griffe.Object) -> Iterator[tuple[str, str]]:
    # griffe compares the members of modules.
    modules = griffe.Module("old"), griffe.Module("new")
    for module, found in zip(modules, (old, new), strict=True):
        module.members["it"] = found
    for change in griffe.find_breaking_changes(*modules):
        place = name + change.obj.path.removeprefix(new.path).removeprefix(old.path)
        values = (change.old_value, change.new_value)
        parameters = [value.name for value in values if isinstance(value, griffe.Parameter)]
        if not parameters:
            yield place, change.kind.value
        elif not _is_fixture(old):
            yield f"{place}({parameters[0]})", change.kind.value
    for field in sorted(_required_fields(new) - _required_fields(old)):
        yield f"{name}.{field}", "Field is now required"
    types = dict(_types(new))
    for (kind, place), before in _types(old):
        after = types.get((kind, place), before)
        # A parameter may accept more types than before, and a result may be one of fewer.
        if not ((kind == "parameter" or after <= before) and (kind == "result" or before <= after)):
            yield f"{name}{place}", "Type was changed"


def _types(found: griffe.Object, place: str = "") -> Iterator[tuple[tuple[str, str], set[str]]]:
    """Of parameters, results and fields: kind, place, and the members of the union."""
    if isinstance(found, griffe.Function):
        for parameter in () if _is_fixture(found) else found.parameters:
            if parameter.annotation:
                yield ("parameter", f"{place}({parameter.name})"), _union(parameter.annotation)
        # A function may return what it did not.
        if found.returns and str(found.returns) != "None":
            yield ("result", place), _union(found.returns)
    elif isinstance(found, griffe.Attribute) and found.annotation:
        kind = "result" if "property" in found.labels else "field"
        yield (kind, place), _union(found.annotation)
    elif isinstance(found, griffe.Class):
        for name, member in found.members.items():
            if isinstance(member, griffe.Object) and member.is_public:
                yield from _types(member, f"{place}.{name}")


def _union(annotation: str | griffe.Expr) -> set[str]:
    """Whether the name of a type is private does not matter."""
    return set(re.sub(r"\b_+(?=\w)", "", str(annotation)).split(" | "))


def _required_fields(found: griffe.Object) -> set[str]:
    """Of a Pydantic model, say. griffe only knows those of dataclasses."""
    return {
        name
        for name, member in found.members.items()
        if isinstance(member, griffe.Attribute)
        and member.annotation
        and member.value is None
        and "property" not in member.labels
    }


def _is_fixture(found: griffe.Object) -> bool:
    """pytest calls it, not the owner."""
    marks = found.decorators if isinstance(found, griffe.Function) else []
    return any(mark.callable_path == "pytest.fixture" for mark in marks)


def uncovered_changes(
    old: Code, new: Code, listed: Interface, table: Table, lists: list[Interface]
) -> list[str]:
    """What broke since a release without notice; `lists` are those of all releases and of today.

    Notice is a row in the table of moved names, or deprecation in two releases. A parameter that is
    deprecated today may have another default, which tells whether it was passed.
    """
    *released, today = lists
    return [
        f"{place}: {what}"
        for place, what in breaking_changes(old, new, listed, table, today.deprecated)
        if sum(place in earlier.deprecated for earlier in released) < 2
        and not (what == DEFAULT_CHANGED and place in today.deprecated)
    ]
