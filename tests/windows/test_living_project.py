"""A project on Windows after setup: it serves, passes its tests, and can be updated."""

import http.client
import json
import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.internals import add_internal_tests, in_parts
from tests.support.postgres import running
from tests.support.projects import Project
from tests.support.revisions import template_head
from tests.support.servers import free_port
from tests.support.wine import Wine, windows_path
from tests.update.edits import commit, git, replace
from tests.windows.conftest import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.wine,
    pytest.mark.skipif(os.name == "nt", reason="on Windows, the CI workflow does this"),
]

Ready = tuple[Project, str]

MIGRATION = """
revision = "{name}"
down_revision = "{parent}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE {name} (id INTEGER)")


def downgrade() -> None:
    op.execute("DROP TABLE {name}")
"""
# In Wine 8, the Windows event loop loses wake-ups, so now and then a test would hang.
SELECTOR_LOOP = """
import asyncio

asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
"""


def test_the_command_that_set_up_prints_starts_the_app(wine: Wine, ready: Ready) -> None:
    project, said = ready
    (command,) = {line.strip() for line in said.splitlines() if "uvicorn app.main" in line}
    port = free_port()
    server = wine.start(project.path, "cmd", "/c", *command.replace("8001", str(port)).split())
    try:
        answers = [ask_until_ready(port), ask(port, "/api/v1/users")]
    finally:
        wine.stop()
        output, _ = server.communicate(timeout=30)

    assert [status for status, _ in answers] == [200, 401], output
    assert answers[0][1] == {"status": "ok"}


def test_serve_answers_on_sqlite_and_refuses_what_windows_lacks(wine: Wine, ready: Ready) -> None:
    project, _ = ready
    serve = [".venv\\Scripts\\python.exe", "-m", "app", "serve"]
    code, refusal = wine.run(project.path, *serve, "--socket", "app.sock")
    port = free_port()
    server = wine.start(project.path, *serve, "--port", str(port))
    try:
        answer = ask_until_ready(port)
    finally:
        wine.stop()
        output, _ = server.communicate(timeout=30)

    assert (code, refusal.count("\n")) == (1, 1), refusal
    assert "--socket does not exist on Windows" in refusal
    assert answer == (200, {"status": "ok"}), output


def test_serve_answers_with_two_workers(wine: Wine, ready: Ready) -> None:
    project, _ = ready
    port = free_port()
    serve = [".venv\\Scripts\\python.exe", "-m", "app", "serve", "--workers", "2"]
    server = wine.start(project.path, *serve, "--port", str(port))
    try:
        ask_until_ready(port)
        answers = [ask(port, "/health/live") for _ in range(10)]
    finally:
        wine.stop()
        output, _ = server.communicate(timeout=30)

    assert answers == [(200, {"status": "ok"})] * 10, output
    assert "Started parent process" in output


def test_serve_answers_on_postgresql(wine: Wine, ready: Ready) -> None:
    project, _ = ready
    python, port = ".venv\\Scripts\\python.exe", free_port()
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
    assert wine.run(project.path, *pip, "psycopg[binary]")[0] == 0
    with running() as postgres:
        url = postgres.url()
        upgraded, said = wine.run(
            project.path, python, "-m", "alembic", "upgrade", "head", DATABASE_URL=url
        )
        checked, findings = wine.run(project.path, python, "-m", "app", "check", DATABASE_URL=url)
        serve = (python, "-m", "app", "serve", "--port", str(port))
        server = wine.start(project.path, *serve, DATABASE_URL=url)
        try:
            answer = ask_until_ready(port)
        finally:
            wine.stop()
            output, _ = server.communicate(timeout=30)

    assert upgraded == 0, said
    assert "PostgresqlImpl" in said
    assert checked == 0, findings
    assert answer == (200, {"status": "ok"}), output


def ask_until_ready(port: int) -> tuple[int, dict[str, str]]:
    """In Wine, the first looks at the database can take longer than readiness allows."""
    for _ in range(10):
        if (answer := ask(port, "/health/ready"))[0] == 200:
            break
    return answer


def ask(port: int, path: str) -> tuple[int, dict[str, str]]:
    """Return the status and the JSON of the response, once the server is up."""
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except ConnectionError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.5)
        finally:
            connection.close()


def test_all_tests_pass(wine: Wine, ready: Ready, tmp_path: Path) -> None:
    """Except those in which several connections write at once, which can hang in Wine, and those
    of emails, which need an SMTP server that no project installs.
    """
    project, _ = ready
    folders = add_internal_tests(project)
    (project.path / "tests/auth_internals/test_mail.py").unlink()
    (tmp_path / "selector_loop.py").write_text(SELECTOR_LOOP)
    command = [".venv\\Scripts\\python.exe", "-m", "pytest", "-q", "-p", "selector_loop"]
    patience = ["-o", "faulthandler_timeout=180", "-o", "faulthandler_exit_on_timeout=true"]
    without = ["-k", "not remove_each_other and not at_once and not lose_no_update"]
    run = partial(wine.run, project.path, *command, *patience, *without)

    try:
        for arguments in in_parts(project, folders):
            code, said = run(*arguments, PYTHONPATH=windows_path(tmp_path))
            if "Timeout (" in said:
                # A real hang would happen twice.
                print(f"Trying again, because Wine hung: {said}")
                code, said = run(*arguments, PYTHONPATH=windows_path(tmp_path))
            assert code == 0, said
            assert " passed" in said
    finally:
        for folder in folders:
            shutil.rmtree(project.path / folder)


def test_an_update_keeps_both_sides_migrates_and_leaves_line_endings_alone(
    ready: Ready, run_with_git: Run, template: Path, tmp_path: Path
) -> None:
    project, _ = ready
    next_template = Project(Path(shutil.copytree(template, tmp_path / "template")), {})
    replace(
        project, ".copier-answers.yml", windows_path(template), windows_path(next_template.path)
    )
    git(project.path, "init", "--quiet")
    add_setting_and_migration(project, "app/settings.py", "shelf")
    commit(project, "Shelves")
    add_setting_and_migration(next_template, "template/app/settings.py.jinja", "cap")
    with (next_template.path / "template/setup.bat").open("ab") as script:
        script.write(b"rem new\r\n")
    commit(next_template, "Caps")
    git(next_template.path, "tag", "v1001.0.0")

    copier = ".venv\\Scripts\\copier.exe"
    update = (project.path, copier, "update", "--trust", "--defaults")
    code, said = run_with_git(*update)
    if code:
        # Wine sometimes loses a process. A real failure would happen twice.
        print(f"Trying again: {said}")
        git(project.path, "reset", "--hard", "--quiet")
        git(project.path, "clean", "--force", "--quiet", "-d")
        code, said = run_with_git(*update)

    assert code == 0, said
    assert "[update] merged your changes and the template's in " in said
    assert "[update] migrations: cap now follows shelf, your last one" in said
    assert "Running upgrade shelf -> cap" in said
    assert "[setup] Done in " in said
    changed = git(project.path, "status", "--porcelain", "--untracked-files=all").split()
    assert changed[1::2] == [
        ".copier-answers.yml",
        "app/settings.py",
        "setup.bat",
        "alembic/versions/cap.py",
    ]
    text = (project.path / "app/settings.py").read_bytes()
    assert b"    cap: int = 3\n" in text
    assert b"    shelf: int = 3\n" in text
    assert b"\r" not in text + (project.path / "alembic/versions/cap.py").read_bytes()
    script_bytes = (project.path / "setup.bat").read_bytes()
    assert script_bytes.endswith(b"exit /b %CODE%\r\nrem new\r\n")
    assert script_bytes.count(b"\n") == script_bytes.count(b"\r\n")


def add_setting_and_migration(project: Project, settings: str, name: str) -> None:
    """The change that both the owner and a release make in the same places."""
    line = "\n\nload_settings"
    replace(project, settings, line, f"    {name}: int = 3\n{line}")
    versions = Path(settings).parents[1] / f"alembic/versions/{name}.py"
    text = f"from alembic import op\n{MIGRATION.format(name=name, parent=template_head())}"
    (project.path / versions).write_text(text)
