"""Changes a copy of the project, so that a failure leaves the project as it was."""

import ast
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from generators.changes import GenerateError, read, write_changes
from generators.places import Spot, after_docstring

# What a migration and a check of the code need. Databases, .env and .venv stay where they are.
COPIED = ("app", "alembic", "generators", "tests", "alembic.ini", "pyproject.toml", ".env.example")


class Stage:
    """A copy of the project, in which files are created and lines inserted."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.changed: list[str] = []
        # What the changed files were in the copy.
        self.originals: dict[str, str] = {}
        self.migrations: set[str] = set()
        # Lines that no place was found for, and the file in which they belong.
        self.left_over: list[str] = []

    def read(self, file: str) -> str:
        return read(self.folder / file)

    def create(self, file: str, template: str, **values: object) -> None:
        """Render a template of this folder. Its imports may name more than the code uses."""
        if (self.folder / file).exists():
            raise GenerateError(f"{file} exists; nothing of yours is replaced")
        (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
        text = self.render(template, **values)
        if not is_valid(text.encode()):
            raise GenerateError(f"{template}.j2 gives code that Python cannot read, for {file}")
        check_names(file, text)
        self.write(file, text)

    def render(self, template: str, **values: object) -> str:
        environment = Environment(  # noqa: S701
            loader=FileSystemLoader(self.project / "generators"),
            keep_trailing_newline=True,
            lstrip_blocks=True,
            trim_blocks=True,
            undefined=StrictUndefined,
        )
        return environment.get_template(f"{template}.j2").render(values)

    def write(self, file: str, text: str) -> None:
        self.originals.setdefault(file, self.read(file))
        (self.folder / file).write_bytes(text.encode())
        self.changed += [] if file in self.changed else [file]

    def insert(self, file: str, line: str, find: Callable[[ast.Module], int | None]) -> None:
        """Insert a line after the one that `find` returns, or tell the user to."""
        code = self.read(file).encode()
        ending = b"\r\n" if b"\r\n" in code else b"\n"
        # Only line ends of Python: a string can contain the others.
        lines = code.splitlines(keepends=True)
        number = find(ast.parse(code))
        if number is not None:
            before, after = lines[:number], lines[number:]
            if before and not before[-1].endswith((b"\n", b"\r")):
                before.append(ending)
            new = b"".join([*before, f"{line}\n".encode().replace(b"\n", ending), *after])
            if is_valid(new):
                self.write(file, new.decode())
                return
        self.left_over.append(f"{file}: {line.strip()}")

    def insert_inline(
        self, file: str, text: str, find: Callable[[ast.Module], Spot | None]
    ) -> bool:
        """Insert text in a line, at the place that `find` returns; whether there is one."""
        lines = self.read(file).encode().splitlines(keepends=True)
        spot = find(ast.parse(b"".join(lines)))
        if spot is not None:
            line = lines[spot[0] - 1]
            lines[spot[0] - 1] = line[: spot[1]] + text.encode() + line[spot[1] :]
            self.write(file, b"".join(lines).decode())
        return spot is not None

    def add_imports(self, file: str, code: str, modules: dict[str, str]) -> None:
        """Import those of the names in `modules` that the code uses and the file lacks."""
        without_texts = re.sub(r'"(?:[^"\\]|\\.)*"', '""', code)
        used = sorted({*re.findall(r"[A-Za-z_]\w*", without_texts)} & modules.keys())
        tree = ast.parse(self.read(file).encode())
        known = {
            alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names
        }
        for name in (name for name in used if name not in known):
            self.insert(file, f"from {modules[name]} import {name}", after_docstring)

    def format(self) -> None:
        """Sort the imports and format, but not in a file whose owner does neither."""
        files = [f for f in self.changed if f.endswith(".py") and not f.startswith("alembic/")]
        created = [file for file in files if not (self.project / file).exists()]
        clean = [file for file in files if self._is_clean(file)]
        self._ruff(created, "check", "--fix", "--exit-zero", "--select=F401")
        self._ruff(clean, "check", "--fix", "--exit-zero", "--select=I")
        self._ruff(clean, "format")

    def _is_clean(self, file: str) -> bool:
        original = self.project / file
        if not original.exists():
            return True
        checks = (["format", "--check"], ["check", "--select=I"])
        return not any(self._run_ruff(*check, str(original)).returncode for check in checks)

    def _ruff(self, files: list[str], *arguments: str) -> None:
        if not files:
            return
        run = self._run_ruff(*arguments, *(str(self.folder / file) for file in files))
        if run.returncode:
            raise GenerateError(f"ruff cannot read what was generated:\n{run.stderr}{run.stdout}")

    def _run_ruff(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # In the project, ruff knows its packages and its settings, which can be in a ruff.toml.
        files = (self.project / name for name in (".ruff.toml", "ruff.toml", "pyproject.toml"))
        config = next((str(file) for file in files if file.exists()), "pyproject.toml")
        options = ("--quiet", "--no-cache", "--config", config)
        return self.run("ruff", *arguments, *options, folder=self.project)

    def run(self, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        # The app may import more of the project than what was copied.
        path = os.pathsep.join([str(self.folder), str(self.project)])
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", *command],
            cwd=folder or self.folder,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )

    def migrate(self, message: str) -> None:
        """Write the migration, and check that it builds what the models describe."""
        self.migrations = names_of_migrations(self.folder)
        self._run_migrations(message)
        (migration,) = names_of_migrations(self.folder) - self.migrations
        self.changed.append(f"alembic/versions/{migration}")

    def add_migration(self, name: str, template: str, **values: object) -> None:
        """Write a migration from a template, after the one that `migrate` has written."""
        revision = uuid4().hex[-12:]
        last = re.search(r"^revision\b.*[\"'](\w+)[\"']", self.read(self.changed[-1]), re.MULTILINE)
        values |= {"revision": revision, "down_revision": last[1] if last else ""}
        file = f"alembic/versions/{revision}_{name}.py"
        self.create(file, template, created=datetime.now(), **values)
        self._run_migrations()

    def _run_migrations(self, *message: str) -> None:
        url = f"sqlite:///{self.folder / 'generate.db'}"
        run = self.run("generators.migration", url, *message)
        if run.returncode:
            reason = last_reason(run.stdout + run.stderr)
            raise GenerateError(f"no migration: in a new SQLite database, {reason}")

    def diff(self) -> str:
        """What would change, as a patch."""
        parts: list[str] = []
        for file in self.changed:
            before = read(self.project / file).splitlines(keepends=True)
            after = self.read(file).splitlines(keepends=True)
            parts += difflib.unified_diff(before, after, f"a/{file}", f"b/{file}")
        return "".join(parts)

    def apply(self) -> None:
        """Change the project, unless it has changed since it was copied."""
        is_as_before = all(read(self.project / f) == text for f, text in self.originals.items())
        if self.migrations and names_of_migrations(self.project) != self.migrations:
            is_as_before = False
        if not is_as_before:
            raise GenerateError("the project has changed in the meantime; run this again")
        files = {file: (self.folder / file).read_bytes() for file in self.changed}
        write_changes(self.project, files)


@contextmanager
def staged(project: Path) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ignored = shutil.ignore_patterns("__pycache__", "*.db*", "*.part")
        for name in COPIED:
            source = project / name
            if source.is_dir():
                shutil.copytree(source, Path(folder) / name, ignore=ignored)
            elif source.exists():
                shutil.copy(source, Path(folder) / name)
        yield Stage(project, Path(folder))


def is_valid(code: bytes) -> bool:
    """Whether Python accepts it. It only warns of two values without a comma between them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        try:
            compile(code, "code", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return False
    return True


def last_reason(output: str) -> str:
    """The last line of a traceback, before the statement that SQLAlchemy adds to it."""
    lines = output.partition("\n[SQL: ")[0].strip().splitlines()
    return lines[-1] if lines else ""


def names_of_migrations(project: Path) -> set[str]:
    return {file.name for file in (project / "alembic/versions").glob("*.py")}


def check_committed(project: Path) -> None:
    """Git undoes a generator, so everything else has to be committed."""
    git = shutil.which("git")
    status = ["status", "--porcelain", "--", "."]
    run = (
        subprocess.run([git, *status], cwd=project, capture_output=True, text=True, check=False)  # noqa: S603
        if git
        else None
    )
    if run is None or run.returncode:
        raise GenerateError(
            "commit the project to git first, so that git can undo this; or use --force"
        )
    if run.stdout:
        raise GenerateError(
            "commit or stash your changes first, so that git can undo this; or use --force"
        )


def check_names(file: str, text: str) -> None:
    """A class that has the name of an import would replace it."""
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        names: dict[str, str] = {}
        if isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name: node.module or "" for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = {node.name: file}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names = {node.targets[0].id: file}
        if twice := [name for name in names if found.get(name, names[name]) != names[name]]:
            raise GenerateError(
                f"{file} would use the name {twice[0]} twice; choose a more specific name, such as "
                "BookPage instead of Page"
            )
        found |= names


def names_in(text: str) -> set[str]:
    """Every name that some code uses, imports or takes as an argument."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text.encode())):
        match node:
            case ast.alias():
                found.add(node.asname or node.name)
            case ast.Name():
                found.add(node.id)
            case ast.arg():
                found.add(node.arg)
    return found
