"""Rewrites the owner's Python code where the template has moved or renamed what it uses.

tools/moved_names.toml is the table. Only the places that change are edited, so formatting and comments
stay. Whatever is not mechanical is reported as `file:line: old name: what to do`.
"""

import ast
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from repository import ANSWERS, TEMPLATE, conflicted_files, list_files
from tools.moved_calls import PAGING, RESERVE, Calls
from tools.python_source import (
    FIRST_PARTY,
    Import,
    Text,
    add_imports,
    bound_names,
    comments_of_names,
    defined_names,
    imported_names,
    imports_of,
    is_tidy,
    render_imports,
    tidy_imports,
)

TABLE = TEMPLATE / "tools/moved_names.toml"
MIGRATIONS = "alembic/versions/"
DOTTED_NAME = re.compile(r"app(\.\w+)+")
# `app.db.backup` would be the copy of a database.
NAME_IN_TEXT = re.compile(r"(?<![\w./-])(?!app\.db\.backup)app(?:\.[A-Za-z_]\w*)+")
IMPORT_IN_TEXT = re.compile(r"from (app[\w.]*) import ([\w, ]+)")
MAX_TEXT = 2**20
GONE = "does not exist"


@dataclass(frozen=True)
class Table:
    modules: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    # Names that are rewritten, whose use may have to change as well.
    changed: dict[str, str] = field(default_factory=dict)
    # The arguments of calls, of before and of today.
    calls: dict[str, list[list[str]]] = field(default_factory=dict)
    # Names that are gone.
    hints: dict[str, str] = field(default_factory=dict)
    # Texts of earlier READMEs.
    readme: dict[str, str] = field(default_factory=dict)
    # Modules and names that are the owner's by now: they stay, whatever else moved from there.
    own: frozenset[str] = frozenset()

    @classmethod
    def load(cls, file: Path = TABLE) -> "Table":
        table = tomllib.loads(file.read_text("utf-8"))
        hints = {
            f"{module}.{name}": "was internal; copy it from the release you used if you need it"
            for module, names in table["internal"].items()
            for name in names
        }
        parts = {part: table[part] for part in ("modules", "names", "changed", "calls", "readme")}
        return cls(**parts, hints=hints | table["hints"])

    @cached_property
    def known_modules(self) -> set[str]:
        """The modules of earlier releases from which at least one name has moved."""
        return {*self.modules, *(name.rpartition(".")[0] for name in (*self.names, *self.hints))}

    def target(self, name: str) -> str:
        """The new dotted name of a module, or of a name in one; the same if it did not move."""
        if name in self.hints or name in self.own:
            return name
        if name in self.names or name in self.modules:
            return self.names.get(name) or self.modules[name]
        module, _, last = name.rpartition(".")
        return f"{self.modules[module]}.{last}" if module in self.modules else name

    def of_project(self, project: Path) -> "Table":
        """The table without what the project defines where it is said to have moved from."""
        own: set[str] = set()
        for module in self.known_modules:
            file = project / f"{module.replace('.', '/')}.py"
            if file.is_file():
                own |= {module} & self.modules.keys()
                with suppress(SyntaxError, ValueError):
                    tree = ast.parse(file.read_bytes())
                    own |= {f"{module}.{name}" for name in defined_names(tree)}
        return replace(self, own=frozenset(own))

    def split(self, name: str) -> tuple[str, str] | None:
        """A dotted name as one that the table knows, and the attributes behind it."""
        parts = name.split(".")
        for length in range(len(parts), 1, -1):
            known, rest = ".".join(parts[:length]), ".".join(parts[length:])
            if known in self.hints or (self.target(known) != known and known not in self.modules):
                return known, rest
        return None


class Report(NamedTuple):
    line: int
    name: str
    new_name: str
    what_to_do: str


@dataclass
class Rewriter:
    """Collects the edits of one file."""

    table: Table
    file: str
    text: Text
    reports: list[Report] = field(default_factory=list)
    # Names to import besides those of the statements that are rewritten.
    missing: list[Import] = field(default_factory=list)
    # Local names and what they mean, in the words of before.
    locals: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    # Local names of modules, and how often each is used otherwise than before a name that moves.
    modules: dict[str, str] = field(default_factory=dict)

    def run(self) -> str:
        self.tree = ast.parse(self.text.source)
        self.bound = Counter(bound_names(self.tree))
        self.imported = Counter(imported_names(self.tree))
        self.uses: dict[str, list[ast.Name]] = defaultdict(list)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name):
                self.uses[node.id].append(node)
        statements = [
            node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for statement in statements:
            self.find_modules(statement)
        self.moved_uses: Counter[str] = Counter()
        self.used_modules: dict[str, set[str]] = defaultdict(set)
        self.rewrite_attributes()
        for statement in statements:
            if isinstance(statement, ast.ImportFrom):
                self.rewrite_from_import(statement)
            else:
                self.rewrite_import(statement)
        names = (self.dotted, self.import_locally, self.table.calls)
        calls = Calls(self.text, self.tree, *names)
        for line, name in calls.run():
            self.report_changed(line, name, at_call=True)
        self.report_strings()
        if not self.text.edits and not self.missing:
            return self.text.source
        was_tidy = is_tidy(self.text.source)
        result = self.text.result()
        if not self.text.source.startswith("\n"):
            # All imports at the top may have gone.
            result = result.lstrip("\n")
        result = add_imports(result, self.missing)
        return tidy_imports(result) if was_tidy else result

    # ---- what the imports bind

    def find_modules(self, statement: ast.Import | ast.ImportFrom) -> None:
        for alias in statement.names:
            if isinstance(statement, ast.ImportFrom):
                name = f"{absolute_module(self.file, statement)}.{alias.name}"
                self.locals[alias.asname or alias.name] = name
                if name in self.table.known_modules:
                    self.modules[alias.asname or alias.name] = name
            elif alias.name.split(".")[0] == "app":
                self.modules[alias.asname or "app"] = alias.name if alias.asname else "app"

    def is_only_imported(self, local: str) -> bool:
        return self.bound[local] == self.imported[local]

    def dotted(self, node: ast.expr) -> str | None:
        """What an expression means, in the words of before; None if it is not only imported."""
        match node:
            case ast.Name(local) if self.is_only_imported(local):
                return self.modules.get(local) or self.locals.get(local)
            case ast.Attribute(value, attribute):
                module = self.dotted(value)
                return module and f"{module}.{attribute}"
        return None

    def import_locally(self, new: Import) -> str | None:
        """The local name of something, which is imported if it is not yet; None if it is taken."""
        target = f"{new.module}.{new.name}"
        for local, name in self.locals.items():
            if self.table.target(name) == target and self.is_only_imported(local):
                return self.renamed.get(local, local)
        if not self.is_free(new.name, target):
            return None
        self.missing.append(new)
        return new.name

    def can_rename(self, local: str, target: str) -> bool:
        """Whether every use of a local name is that of the import, and the new name is free."""
        in_text = re.compile(rf"\b{re.escape(local)}\b")
        new = target.rpartition(".")[2]
        is_there = self.table.target(self.locals.get(new, "")) == target
        return (
            self.bound[local] == 1
            and (is_there or not self.uses[new])
            and self.bound[new] == int(is_there)
            and not any(
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and in_text.search(node.value)
                for node in ast.walk(self.tree)
            )
        )

    # ---- attributes of modules

    def rewrite_attributes(self) -> None:
        inner: set[ast.expr] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and node not in inner:
                chain = [node]
                while isinstance(chain[-1].value, ast.Attribute):
                    chain.append(chain[-1].value)
                inner.update(chain)
                root = chain[-1].value
                if isinstance(root, ast.Name) and root.id in self.modules:
                    self.rewrite_chain(root, chain[::-1])
            elif isinstance(node, ast.Call):
                self.report_patched_attribute(node)

    def rewrite_chain(self, root: ast.Name, chain: list[ast.Attribute]) -> None:
        """`logs.quoted` or `app.logs.quoted`; `chain` holds the attributes from left to right."""
        base = self.modules[root.id]
        if base != "app" and not self.is_only_imported(root.id):
            return
        name = ".".join([base, *(part.attr for part in chain)])
        found = self.table.split(name)
        if found is None:
            return
        known, _ = found
        last = chain[known.count(".") - base.count(".") - 1]
        if known in self.table.hints:
            self.report(last.lineno, known, self.table.hints[known])
            return
        self.report_changed(last.lineno, known)
        target = self.table.target(known)
        module, _, new = target.rpartition(".")
        if base == "app":
            self.missing.append(Import("", module, None))
            self.used_modules[known.rpartition(".")[0]].add(module)
            self.text.replace(root, last, target)
        elif self.table.target(base) == module:
            if new != last.attr:
                self.text.replace_attribute(last, new)
        elif self.is_free(new, target):
            self.missing.append(Import(module, new, None))
            self.moved_uses[root.id] += 1
            self.text.replace(root, last, new)
        else:
            self.report(last.lineno, known, f"now {target}")

    def is_free(self, new: str, target: str) -> bool:
        return (not self.bound[new] and not self.uses[new]) or Import(
            *target.rpartition(".")[::2], None
        ) in self.missing

    def report_patched_attribute(self, call: ast.Call) -> None:
        """`monkeypatch.setattr(logs, "quoted", ...)`: a name in a string is not changed."""
        match call.args:
            case [ast.Name(local), ast.Constant(str(attribute)), *_] if local in self.modules:
                name = f"{self.modules[local]}.{attribute}"
                target = self.table.target(name)
                if name in self.table.hints:
                    self.report(call.lineno, name, self.table.hints[name])
                elif target != f"{self.table.target(self.modules[local])}.{attribute}":
                    self.report(call.lineno, name, f"now {target}")

    # ---- import statements

    def rewrite_import(self, statement: ast.Import) -> None:
        names = []
        for alias in statement.names:
            target = self.table.target(alias.name)
            used = self.used_modules[alias.name] if not alias.asname else set()
            # Where everything that was used of a module went elsewhere, so does its import.
            names += [Import("", name, None) for name in sorted(used)]
            if not used:
                names.append(Import("", target, alias.asname))
        if [new.name for new in names] != [alias.name for alias in statement.names]:
            names = list(dict.fromkeys(names))
            self.missing = [new for new in self.missing if new not in names]
            self.text.replace_statement(statement, render_imports(names))

    def rewrite_from_import(self, statement: ast.ImportFrom) -> None:
        module = absolute_module(self.file, statement)
        if module.split(".")[0] not in FIRST_PARTY:
            return
        imports: list[Import] = []
        comments: dict[Import, str] = {}
        of_names = comments_of_names(self.text, statement)
        for alias, before in zip(statement.names, imports_of(statement), strict=True):
            for new in self.new_import(statement, module, alias):
                imports.append(new)
                if before in of_names:
                    comments[new] = comments.get(new, "") + of_names[before]
        imports = list(dict.fromkeys(imports))
        old = [Import(module, alias.name, alias.asname) for alias in statement.names]
        if imports == old:
            return
        if len(imports) == len(old) and len({new.module for new in imports}) == 1:
            self.rewrite_in_place(statement, imports)
        else:
            statements = render_imports(imports, statement.col_offset, comments)
            self.text.replace_statement(statement, statements)

    def rewrite_in_place(self, statement: ast.ImportFrom, imports: list[Import]) -> None:
        self.text.replace_module(statement, imports[0].module)
        for alias, new in zip(statement.names, imports, strict=True):
            if str(new) != str(Import("", alias.name, alias.asname)):
                self.text.replace(alias, alias, str(new))

    def new_import(
        self, statement: ast.ImportFrom, module: str, alias: ast.alias
    ) -> Iterator[Import]:
        old = f"{module}.{alias.name}"
        local = alias.asname or alias.name
        if alias.name == "*":
            yield Import(self.table.target(module), "*", None)
            yield from self.names_of_star(module)
            return
        if old in self.table.hints:
            self.report(alias.lineno, old, self.table.hints[old])
            yield Import(module, alias.name, alias.asname)
            return
        if self.moved_uses[local] and self.moved_uses[local] == len(self.uses[local]):
            # Nothing uses the module itself.
            return
        self.report_changed(alias.lineno, old)
        target = self.table.target(old)
        new_module, _, name = target.rpartition(".")
        if alias.asname or name == alias.name:
            # `X as X` exports X again.
            keeps_alias = alias.asname != name or alias.asname == alias.name
            yield Import(new_module, name, alias.asname if keeps_alias else None)
        elif old not in self.table.modules and self.can_rename(local, target):
            self.renamed[local] = name
            for use in self.uses[local]:
                self.text.replace(use, use, name)
            yield Import(new_module, name, None)
        else:
            yield Import(new_module, name, local)

    def names_of_star(self, module: str) -> Iterator[Import]:
        """Of a star import, the names in use that the star no longer imports."""
        for local in sorted(self.uses):
            old = f"{module}.{local}"
            target = self.table.target(old)
            if self.bound[local]:
                continue
            if old in self.table.hints:
                self.report(self.uses[local][0].lineno, old, self.table.hints[old])
            elif target != f"{self.table.target(module)}.{local}":
                new_module, _, name = target.rpartition(".")
                yield Import(new_module, name, None if name == local else local)

    # ---- reports

    def report_strings(self) -> None:
        for node in ast.walk(self.tree):
            match node:
                case ast.Constant(str(value)) if DOTTED_NAME.fullmatch(value):
                    if hint := self.table.hints.get(value):
                        self.report(node.lineno, value, hint)
                    elif (target := self.table.target(value)) != value:
                        self.report(node.lineno, value, f"now {target}")

    def report_changed(self, line: int, name: str, *, at_call: bool = False) -> None:
        is_call = name in {*self.table.calls, *PAGING, RESERVE}
        if name in self.table.changed and is_call == at_call:
            what = self.table.changed[name]
            self.report(line, name, f"now {self.table.target(name)}, rewritten: {what}")

    def report(self, line: int, name: str, what_to_do: str) -> None:
        self.reports.append(Report(line, name, self.table.target(name), what_to_do))


def absolute_module(file: str, statement: ast.ImportFrom) -> str:
    """The name of the module that a statement of a file imports from."""
    if not statement.level:
        return statement.module or ""
    package = file.split("/")[: -statement.level]
    return ".".join([*package, *([statement.module] if statement.module else [])])


def rewrite(file: str, source: str, table: Table) -> tuple[str, list[str]]:
    """The text of a file with the names of today, and what is left to do in it."""
    start = "\ufeff" if source.startswith("\ufeff") else ""
    newline = "\r\n" if "\r\n" in source else "\n"
    source = source.removeprefix(start).replace("\r\n", "\n")
    rewriter = Rewriter(table, file, Text(source))
    result = rewriter.run()
    reports = [describe(file, source, result, report) for report in rewriter.reports]
    return start + result.replace("\n", newline), reports


def describe(file: str, source: str, result: str, report: Report) -> str:
    """A report with the line of the result: imports that were rewritten may take more lines."""
    imports = [s for s in ast.parse(source).body if isinstance(s, ast.Import | ast.ImportFrom)]
    line = report.line
    if imports and line <= (imports[-1].end_lineno or 0):
        word = re.compile(rf"\b{re.escape(report.new_name.rpartition('.')[2])}\b")
        found = (n for n, text in enumerate(result.split("\n"), 1) if word.search(text))
        line = next(found, line)
    else:
        line += result.count("\n") - source.count("\n")
    return f"{file}:{line}: {report.name}: {report.what_to_do}"


def project_files(project: Path) -> list[str]:
    """Without links: what they name is another file of the project, or not of the project."""
    files = list_files(project, "ls-files", "--cached", "--others", "--exclude-standard")
    paths = ((file, project / file) for file in files)
    return [file for file, path in paths if path.is_file() and not path.is_symlink()]


def owners_code(project: Path) -> list[str]:
    """Python files without those that only the template changes. A project may have its own core/."""
    zones = ["app/core/"]
    if b"\nauth: true" in b"\n" + (project / ANSWERS).read_bytes():
        zones.append("app/auth/")
    return [
        file
        for file in project_files(project)
        if file.endswith(".py")
        and not (file.startswith(tuple(zones)) and (TEMPLATE / "template" / file).is_file())
    ]


def rewrite_names(project: Path, table: Table) -> list[str]:
    """Rewrite the owner's files; a sentence for each, and a line for each thing left to do."""
    rewritten, left = [], []
    conflicted = conflicted_files(project)
    table = table.of_project(project)
    for file in owners_code(project):
        if file.startswith(MIGRATIONS):
            # They never change.
            continue
        path = project / file
        try:
            source = path.read_bytes().decode("utf-8")
            if "app" not in source or file in conflicted:
                continue
            text, reports = rewrite(file, source, table)
            if text.replace("\r\n", "\n") == source.replace("\r\n", "\n"):
                text = source
        except Exception as error:
            # Whatever is wrong with one file must not stop the update.
            left.append(f"{file}: can't be read ({error}), so names that moved stay as they are")
            continue
        if text != source:
            path.write_bytes(text.encode("utf-8"))
            rewritten.append(file)
        left += reports
    if rewritten:
        left.insert(0, f"names that moved were rewritten in {', '.join(rewritten)}")
    return left


def outdated_readme_lines(project: Path, table: Table) -> list[str]:
    """Lines of the owner's README that name what has moved, and what to write instead."""
    readme = project / "README.md"
    text = readme.read_text("utf-8", "replace") if readme.is_file() else ""
    files = [f"/{file}" for file in project_files(project)]
    moved = {
        old: new
        for old, new in table.readme.items()
        if old in text and not any(f"/{old}" in file for file in files)
    }
    return [
        f"README.md:{number}: {old} -> {new}"
        for number, line in enumerate(text.splitlines(), 1)
        for old, new in moved.items()
        if re.search(rf"(?<![\w./-]){re.escape(old)}", line)
    ]


def names_in_other_files(project: Path, table: Table) -> Iterator[str]:
    """Names that moved, outside of Python code: in settings of logging, notebooks, commands."""
    table = table.of_project(project)
    for file in project_files(project):
        # Neither data nor a picture.
        if file.endswith((".py", ".md")) or (project / file).stat().st_size > MAX_TEXT:
            continue
        content = (project / file).read_bytes()
        if b"\0" in content or b"app." not in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), 1):
            for name in moved_names(line, table):
                yield f"{file}:{number}: {name}: {what_to_do(name, table)}"


def dotted_names(found: re.Match[str]) -> str:
    names = (name.split()[:1] for name in found[2].split(","))
    return " ".join(f"{found[1]}.{name}" for first in names for name in first)


def moved_names(line: str, table: Table) -> Iterator[str]:
    for found in NAME_IN_TEXT.findall(IMPORT_IN_TEXT.sub(dotted_names, line)):
        parts = found.split(".")
        names = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
        moved = next((n for n in names if what_to_do(n, table) != GONE), None)
        if moved is not None:
            yield moved


# ---- imports that no longer work ------------------------------------------------------------


def unresolved_imports(project: Path, table: Table) -> list[str]:
    """Imports from the project of modules and names that it does not have, and what to do."""
    return [
        f"{file}:{line}: {name}: {what_to_do(name, table)}"
        for file in owners_code(project)
        for line, name in imported_from_project(project, file)
        if not exists(project, name)
    ]


def what_to_do(name: str, table: Table) -> str:
    target = table.target(name)
    return table.hints.get(name) or (GONE if target == name else f"now {target}")


def imported_from_project(project: Path, file: str) -> Iterator[tuple[int, str]]:
    """The dotted names of the project that a file imports, and where."""
    try:
        tree = ast.parse((project / file).read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        module = ""
        if isinstance(node, ast.ImportFrom):
            module = f"{absolute_module(file, node)}."
        elif not isinstance(node, ast.Import):
            continue
        for alias in node.names:
            name = f"{module}{alias.name}".removesuffix(".*")
            if name.split(".")[0] in FIRST_PARTY:
                yield alias.lineno, name


def exists(project: Path, name: str) -> bool:
    """Whether a dotted name is a module, a package, or bound in one; without importing anything."""
    path = project.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file() or path.is_dir():
        return True
    for module in (path.parent.with_suffix(".py"), path.parent / "__init__.py"):
        if module.is_file():
            names = names_of_module(module.read_bytes())
            return names is None or not names.isdisjoint({path.name, "*", "__getattr__"})
    return False


@cache
def names_of_module(source: bytes) -> frozenset[str] | None:
    """Every name that a module binds; None if it is invalid."""
    try:
        return frozenset(bound_names(ast.parse(source)))
    except (SyntaxError, ValueError):
        return None
