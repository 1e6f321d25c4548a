"""How the generated code hangs together, and how little of it is Jinja."""

import ast
import re
from pathlib import Path

from tests.projects import ROOT, Project

TEMPLATE = ROOT / "template"

# Each module may import from its own layer's list and from the leaves, never upwards.
LEAVES = {
    "app",
    "app.db.faults",
    "app.errors",
    "app.logs",
    "app.permissions",
    "app.request_faults",
    "app.security",
    "app.setting_checks",
    "app.settings",
}
MAY_IMPORT = {
    "app.models": {"app.db.base", "app.db.reference", "app.models"},
    "app.schemas": {"app.schemas"},
    "app.db": {"app.db"},
    "app.middleware": {"app.peers"},
    "app.passwords": set[str](),
    "app.services": {"app.services", "app.models", "app.schemas", "app.db", "app.passwords"},
    "app.api": {"app.api", "app.services", "app.models", "app.schemas", "app.db"},
    "app.main": {"app.api", "app.db", "app.middleware"},
    "app.doctor": {"app.db", "app.models"},
    "app.transfer": {"app.db", "app.models"},
    "app.accounts": {
        "app.console",
        "app.services",
        "app.models",
        "app.schemas",
        "app.db",
        "app.passwords",
    },
    "app.cli": {
        "app.main",
        "app.db",
        "app.models",
        "app.accounts",
        "app.console",
        "app.doctor",
        "app.transfer",
    },
    "app.__main__": {"app.cli"},
}
MAY_IMPORT_FASTAPI = (
    "app.main",
    "app.errors",
    "app.request_faults",
    "app.api",
    "app.db.session",
)

JINJA_FILES = {
    ".copier-answers.yml.jinja",
    "README.md.jinja",
    "app/__init__.py.jinja",
    "app/api/welcome.html.jinja",
    "app/api/routers.py.jinja",
    "app/cli.py.jinja",
    "app/settings.py.jinja",
    "constraints.txt.jinja",
    "pyproject.toml.jinja",
}


def module_name(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def imports(project: Project) -> list[tuple[str, str]]:
    """(module, what it imports) for every import in app/, also inside functions."""
    found = []
    for file in project.files():
        if file.parts[0] != "app" or file.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(project.read(str(file)))):
            if isinstance(node, ast.ImportFrom):
                found.append((module_name(file), node.module or "."))
            elif isinstance(node, ast.Import):
                found += [(module_name(file), alias.name) for alias in node.names]
    return found


def is_below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_imports_point_one_way(project: Project) -> None:
    wrong = []
    for module, imported in imports(project):
        if not is_below(imported, "app") or imported in LEAVES:
            continue
        allowed = next((MAY_IMPORT[p] for p in MAY_IMPORT if is_below(module, p)), set())
        if not any(is_below(imported, package) for package in allowed):
            wrong.append((module, imported))

    assert wrong == []


def test_the_leaves_import_only_leaves(project: Project) -> None:
    wrong = [
        (module, imported)
        for module, imported in imports(project)
        if module in LEAVES and is_below(imported, "app") and imported not in LEAVES
    ]

    assert wrong == []


def test_fastapi_is_imported_where_http_is_spoken(project: Project) -> None:
    wrong = {
        module
        for module, imported in imports(project)
        if is_below(imported, "fastapi")
        and not any(is_below(module, package) for package in MAY_IMPORT_FASTAPI)
    }

    assert wrong == set()


def test_there_is_one_commit(project: Project) -> None:
    """The session dependency begins and commits; nothing else in the app does."""
    for file in project.files():
        if file.parts[0] == "app" and file.suffix == ".py":
            assert not re.search(r"\.(commit|rollback)\(", project.read(str(file))), file


def test_files_stay_short(project: Project) -> None:
    lengths = {
        str(file): len(project.read(str(file)).splitlines())
        for file in project.files()
        if file.parts[0] == "app" and file.suffix == ".py"
    }

    assert {file: lines for file, lines in lengths.items() if lines > 150} == {}


def test_jinja_is_in_the_seams_only() -> None:
    found = {
        file.relative_to(TEMPLATE).as_posix()
        for file in TEMPLATE.rglob("*")
        if file.suffix == ".jinja"
    }

    assert found == JINJA_FILES


def test_python_files_hold_next_to_no_jinja() -> None:
    """Four tags a file: an option that needs more wants a file of its own."""
    for file in TEMPLATE.rglob("*.py.jinja"):
        text = file.read_text("utf-8")
        assert len(re.findall(r"{%-? *if", text)) <= 4, file
        assert len(re.findall(r"{{", text)) <= 4, file


def test_the_template_itself_is_clean() -> None:
    """What is not a seam can be linted where it lies."""
    project = Project(ROOT, {})

    project.succeed("ruff", "check", ".")
    project.succeed("ruff", "format", "--check", ".")
    project.succeed("mypy")
