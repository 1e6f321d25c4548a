"""How the generated code is divided, and how little of it is Jinja."""

import ast
import re
from collections.abc import Iterable, Iterator

from tests.support.projects import ROOT, Project

TEMPLATE = ROOT / "template"

MAX_FUNCTION = 40
MAX_IMPORTS = 8
MAX_FILE = 260

# They bring everything about users together: rules, schemas, sessions, passwords and emails. A list
# of routers names all.
MAY_IMPORT_MORE = {
    "app.api.routers",
    "app.auth.account",
    "app.auth.service",
    "app.auth.users",
    "app.auth.users_router",
}

# What app.auth may import apart from itself and app.core. The owner's modules may import anything.
AUTH_MAY_IMPORT = {"app", "app.db", "app.models", "app.permissions", "app.schemas", "app.settings"}

# A request is one transaction, which get_session begins. These are the exceptions.
TRANSACTIONS = {
    # When a connection is opened, before any request uses it.
    "app.core.postgresql._prepare_nothing_in_a_pooler",
    # A session on the standby, which only reads.
    "app.core.postgresql.session",
    # SQLAlchemy calls it when one of the others begins.
    "app.core.sqlite.do_begin",
    "app.db.session.get_session",
    # Attempts count even if the request fails, and logins must not wait for a lock while hashing.
    "app.auth.account.confirm_email",
    "app.auth.account.register",
    "app.auth.account.request_email_change",
    "app.auth.account.request_password_reset",
    "app.auth.account.request_registration",
    "app.auth.account.reset_password",
    "app.auth.service.change_password",
    "app.auth.service._verify_and_log_in",
    "app.auth.throttle._count",
    "app.auth.throttle._give_back",
    # The note that a login session is in use is written after the response.
    "app.auth.authentication.touch",
    # These run outside of requests.
    "app.auth.mail_cli._retry_next",
    "app.auth.mail_sender._claim",
    "app.auth.mail_sender._finish",
    "app.auth.mail_sender._update",
    "app.core.copy_database.copy_database",
    "app.core.copy_database._insert",
    "app.core.migrations._migrate_async",
    "app.core.migrations._migrate_sync",
}

JINJA_FILES = {
    ".copier-answers.yml.jinja",
    "AGENTS.md.jinja",
    "Dockerfile.jinja",
    "README.md.jinja",
    "alembic/versions/c3f07a5e9b21_ids.py.jinja",
    "app/__init__.py.jinja",
    "app/api/deps.py.jinja",
    "app/api/routers.py.jinja",
    "app/cli.py.jinja",
    "app/core/welcome.html.jinja",
    "app/settings.py.jinja",
    "compose.yaml.jinja",
    "constraints.txt.jinja",
    "deploy/Caddyfile.jinja",
    "deploy/nginx.conf.jinja",
    "deploy/{{ project_slug }}-backup.service.jinja",
    "deploy/{{ project_slug }}-backup.timer.jinja",
    "deploy/{{ project_slug }}.service.jinja",
    "docs/developing.md.jinja",
    "docs/operating.md.jinja",
    "docs/security.md.jinja",
    "pyproject.toml.jinja",
    "requirements.txt.jinja",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(project: Project) -> Iterator[tuple[str, ast.Module]]:
    for file in project.files():
        if file.parts[0] == "app" and file.suffix == ".py":
            name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(project.read(str(file)))


def imports(project: Project, nodes: Iterable[ast.AST]) -> set[str]:
    """The modules of app/ that these statements import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                path = name.replace(".", "/")
                is_module = project.has(f"{path}.py") or project.has(f"{path}/__init__.py")
                found.add(name if is_module else node.module or "")
    return {name for name in found if is_in(name, "app")}


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Lines of the body, without the docstring and the functions in it."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return lines - sum(length(node) for node in body if isinstance(node, Function))


def test_the_zones_import_only_what_they_may(project: Project) -> None:
    wrong = []
    for module, tree in modules(project):
        for name in imports(project, ast.walk(tree)):
            if is_in(module, "app.core"):
                is_allowed = is_in(name, "app.core")
            elif is_in(module, "app.auth"):
                own = {"app.auth", "app.core", *AUTH_MAY_IMPORT - {"app"}}
                is_allowed = name == "app" or any(is_in(name, package) for package in own)
            else:
                is_allowed = True
            if not is_allowed:
                wrong.append((module, name))

    assert wrong == []


def test_every_folder_of_the_app_is_a_package(project: Project) -> None:
    folders = {file.parent for file in project.files() if file.parts[0] == "app"}

    assert [folder for folder in folders if not project.has(f"{folder}/__init__.py")] == []


def test_no_module_imports_too_many_of_ours(project: Project) -> None:
    """At the top: commands import what they need when they run."""
    counted = {module: imports(project, tree.body) for module, tree in modules(project)}
    too_many = {module for module, names in counted.items() if len(names) > MAX_IMPORTS}

    assert too_many <= MAY_IMPORT_MORE


def test_functions_are_short(project: Project) -> None:
    lengths = {
        f"{module}.{function.name}": length(function)
        for module, tree in modules(project)
        for function in functions(tree)
    }

    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION} == {}


def test_files_are_short(project: Project) -> None:
    lengths = {
        str(file): len(project.read(str(file)).splitlines())
        for file in project.files()
        if file.parts[0] == "app" and file.suffix == ".py"
    }

    assert {file: lines for file, lines in lengths.items() if lines > MAX_FILE} == {}


def test_a_request_is_one_transaction_with_few_exceptions(project: Project) -> None:
    """Commands may begin as many as they like."""
    found = {
        f"{module}.{function.name}"
        for module, tree in modules(project)
        for function in functions(tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"begin", "begin_nested", "commit", "rollback"}
        # These only read.
        and not re.search(r"\breaders?\.begin$", ast.unparse(node.func))
        and not module.endswith(".cli")
    }

    has_auth = project.answers["auth"]
    assert found == {name for name in TRANSACTIONS if has_auth or not is_in(name, "app.auth")}


def test_jinja_is_at_the_merge_points_only() -> None:
    found = {
        file.relative_to(TEMPLATE).as_posix()
        for file in TEMPLATE.rglob("*")
        if file.suffix == ".jinja"
    }

    assert found == JINJA_FILES


def test_python_files_have_next_to_no_jinja() -> None:
    """Four tags a file. An option that needs more gets a separate file."""
    for file in TEMPLATE.rglob("*.py.jinja"):
        text = file.read_text("utf-8")
        assert len(re.findall(r"{%-? *if", text)) <= 4, file
        assert len(re.findall(r"{{", text)) <= 4, file


def test_the_template_itself_is_clean() -> None:
    """Every file but the merge points can be linted in place."""
    project = Project(ROOT, {})

    project.succeed("ruff", "check", ".")
    project.succeed("ruff", "format", "--check", ".")
    project.succeed("mypy")
