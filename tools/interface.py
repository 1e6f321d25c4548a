"""The names that owners import: `python -m tools.interface` lists them in docs/developing.md.

tools/interface.toml is the one place where they are declared.
"""

import itertools
import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "template/docs/developing.md.jinja"
LIST = "tools/interface.toml"
# What the command writes between them.
MARKED = re.compile(r"({# interface: (\w+) #}\n).*?({# end #}\n)", re.DOTALL)


class Name(NamedTuple):
    module: str
    name: str
    purpose: str
    auth: bool

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Interface:
    imported: list[Name]
    started: list[Name]
    fixtures: list[Name]
    # Modules and packages that are private apart from the names above.
    internal: list[str]
    # Name, or name(parameter) → successor.
    deprecated: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "Interface":
        table = tomllib.loads(text)
        imported, started, fixtures = (
            list(_names(table[group])) for group in ("import", "started", "fixtures")
        )
        return cls(imported, started, fixtures, table["internal"], table["deprecated"])

    @classmethod
    def load(cls) -> "Interface":
        return cls.parse((ROOT / LIST).read_text("utf-8"))

    def names(self, *, auth: bool = True) -> list[str]:
        every = (*self.imported, *self.started, *self.fixtures)
        return [str(name) for name in every if auth or not name.auth]

    def is_internal(self, module: str) -> bool:
        return any(f"{module}.".startswith(f"{internal}.") for internal in self.internal)

    def document(self, text: str) -> str:
        """The document with the tables of today."""
        parts = {
            "import": _rows(self.imported),
            "started": _rows(self.started),
            "fixtures": _rows(self.fixtures, fixtures=True),
            "internal": self._describe_internal(),
        }
        return MARKED.sub(lambda match: match[1] + parts[match[2]] + match[3], text)

    def _describe_internal(self) -> str:
        modules = [f"`{m.removeprefix('app.core.')}`" for m in self.internal if "core" in m]
        core = f"- of these modules of `app.core`, all other names: {', '.join(modules)}"
        auth = "{% if auth %}\n- of `app.auth`, all other names\n{% endif %}\n"
        return auth + textwrap.fill(core, 100, subsequent_indent="  ") + "\n"


def _names(modules: dict[str, dict[str, Any]]) -> Iterator[Name]:
    for module, rows in modules.items():
        is_login = module.startswith(("app.auth.", "tests.auth."))
        for name, purpose in rows.items():
            if isinstance(purpose, dict):
                yield from (Name(module, *row, auth=True) for row in purpose.items())
            else:
                yield Name(module, name, purpose, auth=is_login)


def _rows(names: list[Name], *, fixtures: bool = False) -> str:
    title = "| fixture or type | what it is | from |" if fixtures else "| name | what it is |"
    lines = [title, "|---|---|---|" if fixtures else "|---|---|"]
    for auth, group in itertools.groupby(names, lambda name: name.auth):
        rows = [
            f"| `{name.name}` | {name.purpose} | `{name.module.replace('.', '/')}.py` |"
            if fixtures
            else f"| `{name}` | {name.purpose} |"
            for name in group
        ]
        lines += ["{% if auth %}", *rows, "{% endif %}"] if auth else rows
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    text = DOCUMENT.read_text("utf-8")
    DOCUMENT.write_text(Interface.load().document(text), "utf-8")
