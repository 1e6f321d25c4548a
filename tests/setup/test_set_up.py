"""Setup in real environments: real installations, no network, kills, moved folders."""

import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from tests.support.machines import Machine, base_python
from tests.support.servers import Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has setup.bat"),
]

UV = str(Path(sys.executable).with_name("uv"))


@pytest.fixture
def uv_machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "uv-home", {"python3": base_python(), "uv": UV})


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> tuple[Machine, Path, str]:
    """Create a project on a bare machine with pip: the machine, the project, the output."""
    base = tmp_path_factory.mktemp("bare")
    folder = base / "My Projects ü & co"
    folder.mkdir()
    machine = Machine(base / "home", {"python3": base_python()})
    code, said = machine.run("python3", checkout / "create_project.py", "my_new_app", cwd=folder)
    assert code == 0, said
    return machine, folder / "my_new_app", said


@contextmanager
def with_uv(machine: Machine) -> Iterator[None]:
    """Let setup use uv, which is faster than pip, where the test is about something else."""
    machine.add("uv", UV)
    try:
        yield
    finally:
        machine.remove("uv")


def revision(project: Path) -> str:
    with closing(sqlite3.connect(project / "app.db")) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def newest(project: Path) -> str:
    """The revision that the project's own migrations end at."""
    return str(ScriptDirectory(str(project / "alembic")).get_current_head())


def is_set_up(machine: Machine, project: Path) -> bool:
    code, said = machine.run(project / ".venv/bin/python", "-m", "app", "check", cwd=project)
    assert code == 0, said
    return revision(project) == newest(project)


def test_g1_one_command_makes_a_project_that_is_set_up(created: tuple[Machine, Path, str]) -> None:
    machine, project, said = created

    assert is_set_up(machine, project)
    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600
    assert 'TITLE = "My New App"' in (project / "app/__init__.py").read_text()
    assert "Downloading Copier" in said
    assert "\n    cd my_new_app\n" in said


def test_the_command_it_prints_starts_the_app(created: tuple[Machine, Path, str]) -> None:
    machine, project, said = created
    command = re.findall(
        r"^ +(\S+/uvicorn .+) --reload --reload-dir app --port 8001$", said, re.MULTILINE
    )[-1]

    with Server(machine, [project / command.split()[0], *command.split()[1:]], project) as server:
        assert server.get("/").status == 200
        assert server.get("/api/v1/").json()["name"] == "My New App"
        assert server.get("/health/ready").status == 200


def test_its_own_checks_pass_in_its_own_environment(created: tuple[Machine, Path, str]) -> None:
    machine, project, _ = created
    for command in (["pytest", "-q"], ["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        program = project / ".venv/bin" / command[0]
        code, said = machine.run(program, *command[1:], cwd=project)
        assert code == 0, said
    code, said = machine.run(project / ".venv/bin/my-new-app", "check", cwd=project)
    assert code == 0, said
    code, said = machine.run(
        project / ".venv/bin/pip",
        "install",
        "--quiet",
        "-e",
        ".",
        "-c",
        "constraints.txt",
        cwd=project,
    )
    assert code == 0, said


def test_g3_git_ignores_what_set_up_made(created: tuple[Machine, Path, str]) -> None:
    machine, project, _ = created
    machine.run("git", "init", "--quiet", cwd=project)
    machine.run("git", "add", "--all", cwd=project)

    _, tracked = machine.run("git", "ls-files", cwd=project)

    assert not re.search(r"^\.env$|\.db|\.venv|egg-info|__pycache__|_cache", tracked, re.MULTILINE)


def test_copier_is_there_for_updates_and_an_update_sets_up(
    created: tuple[Machine, Path, str], tmp_path: Path
) -> None:
    machine, project, _ = created
    copy = tmp_path / "shelf"
    made = [".venv", ".env", "*.db*", "*.egg-info", "__pycache__", ".git", ".*_cache"]
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(*made))
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "Start"]):
        machine.run("git", *command, cwd=copy)

    with with_uv(machine):
        code, said = machine.run(
            project / ".venv/bin/copier", "update", "--trust", "--defaults", cwd=copy
        )

    assert code == 0, said
    assert "[setup] Done in " in said
    assert machine.run("git", "status", "--porcelain", cwd=copy)[1] == ""


def test_a_link_to_the_script_touches_nothing(
    created: tuple[Machine, Path, str], folder: Path
) -> None:
    machine, project, _ = created
    (folder / ".venv").mkdir()
    (folder / ".venv/precious").touch()
    (folder / "link").symlink_to(project / "setup.sh")

    code, said = machine.run("./link", cwd=folder)

    assert code == 1
    assert "not in a project folder" in said
    assert (folder / ".venv/precious").exists()


def test_a_second_run_keeps_everything_and_needs_no_network(
    created: tuple[Machine, Path, str],
) -> None:
    machine, project, _ = created
    settings = (project / ".env").read_text() + "# mine\n"
    (project / ".env").write_text(settings)

    code, said = machine.run(project / "setup.sh", cwd=project.parent, online=False)

    assert code == 0, said
    assert (project / ".env").read_text() == settings
    assert is_set_up(machine, project)


def test_a_folder_that_was_moved_is_set_up_again(
    created: tuple[Machine, Path, str], uv_machine: Machine, tmp_path: Path
) -> None:
    _, project, _ = created
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)

    code, said = uv_machine.run("./setup.sh", cwd=moved)

    assert code == 0, said
    assert str(project) not in (moved / ".venv/bin/uvicorn").read_text()
    assert is_set_up(uv_machine, moved)


def test_uv_is_used_where_it_is_there(uv_machine: Machine, checkout: Path, folder: Path) -> None:
    code, said = uv_machine.run("python3", checkout / "create_project.py", "shelf", cwd=folder)

    assert code == 0, said
    assert is_set_up(uv_machine, folder / "shelf")
    # The environment has pip too, for the commands of the README.
    assert (folder / "shelf/.venv/bin/pip").exists()


def test_copier_does_the_same_through_its_hook(
    uv_machine: Machine, checkout: Path, folder: Path
) -> None:
    copier = Path(sys.executable).with_name("copier")

    code, said = uv_machine.run(
        copier, "copy", "--trust", "--defaults", checkout, "shelf", cwd=folder
    )

    assert code == 0, said
    assert is_set_up(uv_machine, folder / "shelf")


def test_p5_without_trust_the_files_are_the_same_and_the_script_finishes(
    uv_machine: Machine, checkout: Path, folder: Path
) -> None:
    copier = Path(sys.executable).with_name("copier")
    skip = {"COPIER_FASTAPI_SETUP": "skip"}
    uv_machine.run(
        copier, "copy", "--trust", "--defaults", checkout, "a", cwd=folder, environment=skip
    )

    code, said = uv_machine.run(
        copier, "copy", "--skip-tasks", "--defaults", checkout, "b", cwd=folder
    )

    assert code == 0
    assert "and is not set up yet.\nRun ./setup.sh there" in said
    first, second = (
        {p.relative_to(folder / n): p.read_bytes() for p in (folder / n).rglob("*") if p.is_file()}
        for n in ("a", "b")
    )
    assert first == second
    code, said = uv_machine.run("sh", "setup.sh", cwd=folder / "b")
    assert code == 0, said
    assert is_set_up(uv_machine, folder / "b")


def test_offline_the_project_is_rendered_and_one_command_finishes_it(
    created: tuple[Machine, Path, str], checkout: Path, folder: Path
) -> None:
    machine, _, _ = created  # Copier is in its cache by now

    code, said = machine.run(
        "python3", checkout / "create_project.py", "shelf", cwd=folder, online=False
    )

    assert code == 3
    assert "The project's files are complete." in said
    assert "run ./setup.sh in" in said
    assert (folder / "shelf/app/main.py").exists()
    with with_uv(machine):
        code, said = machine.run("./setup.sh", cwd=folder / "shelf")
    assert code == 0, said
    assert is_set_up(machine, folder / "shelf")


def test_offline_and_without_copier_it_says_so(
    machine: Machine, checkout: Path, folder: Path
) -> None:
    code, said = machine.run(
        "python3", checkout / "create_project.py", "shelf", cwd=folder, online=False
    )

    assert code == 1
    assert "could not download Copier (see above). When you are online, run this again." in said
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []


def test_a_hook_that_fails_leaves_the_project_standing(
    machine: Machine, checkout: Path, folder: Path
) -> None:
    copier = Path(sys.executable).with_name("copier")

    code, said = machine.run(
        copier, "copy", "--trust", "--defaults", checkout, "shelf", cwd=folder, online=False
    )

    assert code == 0
    assert "Setup failed" in said
    assert (folder / "shelf/app/main.py").exists()


@pytest.mark.parametrize("attempt", range(4))
def test_set_up_that_was_killed_is_finished_by_running_it_again(
    uv_machine: Machine, created: tuple[Machine, Path, str], tmp_path: Path, attempt: int
) -> None:
    _, whole, _ = created
    project = tmp_path / "shelf"
    made = [".venv", ".env", "*.db*", "*.egg-info", "__pycache__", ".git", ".*_cache"]
    shutil.copytree(whole, project, ignore=shutil.ignore_patterns(*made))
    moment = random.Random(attempt).uniform(0.1, 2.5)

    process = uv_machine.popen("./setup.sh", cwd=project)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, said = uv_machine.run("./setup.sh", cwd=project)

    assert code == 0, f"killed after {moment:.2f} s\n{said}"
    assert is_set_up(uv_machine, project)


def test_an_environment_of_a_killed_installation_is_created_again(
    uv_machine: Machine, created: tuple[Machine, Path, str], tmp_path: Path
) -> None:
    _, whole, _ = created
    project = tmp_path / "shelf"
    made = [".venv", ".env", "*.db*", "*.egg-info", "__pycache__", ".git", ".*_cache"]
    shutil.copytree(whole, project, ignore=shutil.ignore_patterns(*made))
    assert uv_machine.run("./setup.sh", cwd=project)[0] == 0
    half = project / ".venv/half-installed"
    assert not half.exists()
    (package,) = project.glob(".venv/lib/python*/site-packages/jinja2-*.dist-info")
    (package / "METADATA").unlink()
    (project / ".venv/installed.txt").unlink()
    half.touch()

    code, said = uv_machine.run("./setup.sh", cwd=project)

    assert code == 0, said
    assert is_set_up(uv_machine, project)
    assert not half.exists()


def test_a_generation_that_was_killed_leaves_no_half_project(
    uv_machine: Machine, checkout: Path, folder: Path
) -> None:
    uv_machine.run(
        "uv", "tool", "run", "--from", "copier==9.19.1", "copier", "--version", cwd=folder
    )
    for moment in (0.3, 0.6, 0.9, 1.2):
        process = uv_machine.popen("python3", checkout / "create_project.py", "shelf", cwd=folder)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        project = folder / "shelf"
        assert not project.exists() or (project / "setup.sh").exists()
        shutil.rmtree(project, ignore_errors=True)


def test_a_machine_without_python_learns_where_to_get_it(
    machine: Machine, created: tuple[Machine, Path, str], tmp_path: Path
) -> None:
    project = tmp_path / "shelf"
    shutil.copytree(created[1], project, ignore=shutil.ignore_patterns(".venv"))
    machine.remove("python3")

    code, said = machine.run("./setup.sh", cwd=project)

    assert code == 10
    assert "Python 3.11 or newer was not found" in said


def test_a_python_that_is_too_old_is_named(
    machine: Machine, created: tuple[Machine, Path, str], tmp_path: Path
) -> None:
    project = tmp_path / "shelf"
    shutil.copytree(created[1], project, ignore=shutil.ignore_patterns(".venv"))
    machine.remove("python3")
    old = machine.bin / "python3"
    old.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit\n'
        '[ "$2" = "" ] && exit 0\nexit 1\n'
    )
    old.chmod(0o755)

    code, said = machine.run("./setup.sh", cwd=project)

    assert code == 11
    assert "This is Python 3.9.2" in said


def test_a_migration_that_fails_stops_set_up_with_its_reason(
    created: tuple[Machine, Path, str], tmp_path: Path
) -> None:
    machine, project, _ = created
    broken = project / "alembic/versions/0000_broken.py"
    broken.write_text(
        f'revision = "0000"\ndown_revision = "{newest(project)}"\n'
        'def upgrade():\n    raise RuntimeError("boom")\n'
    )

    code, said = machine.run("./setup.sh", cwd=project)
    broken.unlink()

    assert code == 16
    assert "boom" in said
    assert "could not migrate the database" in said


def interpreters() -> dict[str, str]:
    """The supported Pythons of this machine, without the one of `created` if there are others."""
    found = {}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        places = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")]
        if program := (str(places[0]) if places else shutil.which(f"python{version}")):
            found[version] = program
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {version: found[version] for version in found if version != own} or found


@pytest.mark.parametrize("version", interpreters())
def test_it_works_on_every_python_that_is_here(
    version: str, checkout: Path, folder: Path, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "home", {"python3": interpreters()[version], "uv": UV})
    copier = Path(sys.executable).with_name("copier")
    machine.run(copier, "copy", "--trust", "--defaults", checkout, "shelf", cwd=folder)

    code, said = machine.run(".venv/bin/python", "-m", "pytest", "-q", cwd=folder / "shelf")

    assert code == 0, said
    assert machine.run(".venv/bin/python", "--version", cwd=folder / "shelf")[1].startswith(
        f"Python {version}."
    )


def test_the_tests_run_where_the_systems_python_refuses_pip(checkout: Path, tmp_path: Path) -> None:
    """PEP 668, as on Debian and Ubuntu."""
    clone = tmp_path / "clone"
    shutil.copytree(checkout, clone)
    machine = Machine(tmp_path / "home", {"python3": base_python()})
    if Path("/usr/bin/python3").exists():
        machine = Machine(tmp_path / "debian", {"python3": "/usr/bin/python3"})

    code, said = machine.run(
        "python3", "-m", "tests", "-q", "tests/render/test_agreement.py", cwd=clone
    )

    assert code == 0, said
    assert " passed" in said


def test_a_pip_that_installs_for_the_user_by_default_is_told_not_to(
    created: tuple[Machine, Path, str], tmp_path: Path
) -> None:
    _, whole, _ = created
    project = tmp_path / "shelf"
    made = [".venv", ".env", "*.db*", "*.egg-info", "__pycache__", ".git", ".*_cache"]
    shutil.copytree(whole, project, ignore=shutil.ignore_patterns(*made))
    machine = Machine(tmp_path / "home", {"python3": base_python()})
    configuration = tmp_path / "home/.config/pip/pip.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("[install]\nuser = true\n")

    code, said = machine.run("./setup.sh", cwd=project)

    assert code == 0, said


def test_an_environment_that_uv_made_without_pip_is_created_again(
    created: tuple[Machine, Path, str], uv_machine: Machine, tmp_path: Path
) -> None:
    """As `uv sync` does, which also writes uv.lock."""
    _, whole, _ = created
    project = tmp_path / "shelf"
    made = [".venv", ".env", "*.db*", "*.egg-info", "__pycache__", ".git", ".*_cache"]
    shutil.copytree(whole, project, ignore=shutil.ignore_patterns(*made))
    code, said = uv_machine.run("uv", "sync", cwd=project)
    assert code == 0, said

    code, said = uv_machine.run("./setup.sh", cwd=project)

    assert code == 0, said
    assert is_set_up(uv_machine, project)


def test_a_person_reads_a_few_lines(created: tuple[Machine, Path, str]) -> None:
    machine, project, said = created

    # "Downloading Copier" is printed once, and the note is about a template on this computer.
    assert len(said.splitlines()) <= 15, said
    assert said.splitlines()[-1].startswith("NOTE: GitHub can't reach a template on this computer.")
    code, verbose = machine.run(project / "setup.sh", "--verbose", cwd=project)
    assert code == 0
    assert "SQLiteImpl" in verbose
    assert "SQLiteImpl" not in said


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://root@localhost/shop", "DATABASE_URL: start with one of"),
        ("sqlite:////nowhere/shop.db", "/nowhere does not exist: create it, or fix DATABASE_URL"),
    ],
)
def test_a_foreign_database_url_in_the_shell_is_named(
    created: tuple[Machine, Path, str], url: str, reason: str
) -> None:
    machine, project, _ = created

    code, said = machine.run("./setup.sh", cwd=project, environment={"DATABASE_URL": url})

    assert code in {16, 17}
    assert reason in said
    assert "Traceback" not in said
