"""What the hooks do in one file or one repository: real git, and no Copier around it."""

import subprocess
from pathlib import Path

import pytest

from line_merge import describe_duplicate_names, newer_versions, union_merge
from post_update import release_notes
from repository import (
    begin_update,
    committed_half_update,
    conflicted_files,
    end_update,
    template_version,
    update_marker,
)
from tests.support.projects import ROOT
from tests.update.edits import git
from tools.releases import releases

SETTINGS = "class Settings:\n    one: int = 1\n\n    def method(self) -> None: ...\n"
WORKFLOW = "jobs:\n  check:\n    runs-on: linux\n    steps: []\n"
PROJECT = '[project]\ndependencies = [\n    "alembic>=1",\n    "uvicorn>=1",\n]\n'


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    return tmp_path


def conflict(shelf: Path, file: str, before: str | None, yours: str, template: str) -> str:
    """Leave a file as an update leaves it; its text, with conflict marks."""

    def save(text: str | None) -> None:
        if text is not None:
            (shelf / file).write_text(text, "utf-8")
        git(shelf, "add", "--all")
        git(shelf, "commit", "--quiet", "--allow-empty", "-m", "Work")

    save(before)
    git(shelf, "checkout", "--quiet", "-b", "template")
    save(template)
    git(shelf, "checkout", "--quiet", "main")
    save(yours)
    subprocess.run(["git", "merge", "template"], cwd=shelf, check=False, capture_output=True)
    text = (shelf / file).read_text("utf-8")
    assert "<<<<<<<" in text
    return text


@pytest.mark.parametrize(
    ("file", "before", "yours", "template"),
    [
        (
            "settings.py",
            SETTINGS,
            SETTINGS.replace("= 1\n", '= 1\n    host: str = "a"\n'),
            SETTINGS.replace("= 1\n", "= 1\n    port: int = 1\n"),
        ),
        (
            "ci.yml",
            WORKFLOW,
            f"{WORKFLOW}  deploy:\n    runs-on: linux\n",
            f"{WORKFLOW}  audit:\n    runs-on: linux\n",
        ),
        (
            "pyproject.toml",
            PROJECT,
            PROJECT.replace(",\n]", ',\n    "yaml>=1",\n]'),
            PROJECT.replace(",\n]", ',\n    "wheel>=1",\n]'),
        ),
        (
            "permissions.py",
            'X = {\n    "users:read": "",\n}\n',
            'X = {\n    "users:read": "",\n    "books:read": "",\n}\n',
            'X = {\n    "users:read": "",\n    "users:export": "",\n}\n',
        ),
    ],
    ids=["settings", "jobs", "libraries", "permissions"],
)
def test_what_both_add_under_two_names_is_kept_of_both(
    shelf: Path, file: str, before: str, yours: str, template: str
) -> None:
    conflict(shelf, file, before, yours, template)

    assert union_merge(shelf, [file]) == [file]

    merged = (shelf / file).read_text("utf-8").splitlines()
    for line in [*yours.splitlines(), *template.splitlines()]:
        assert line in merged
    assert conflicted_files(shelf) == []


@pytest.mark.parametrize(
    ("file", "before", "yours", "template"),
    [
        (
            "settings.py",
            SETTINGS,
            SETTINGS.replace("= 1\n", '= 1\n    host: str = "a"\n'),
            SETTINGS.replace("= 1\n", '= 1\n    host: str = "b"\n'),
        ),
        (
            "deps.py",
            SETTINGS,
            f"{SETTINGS}\n\nasync def get_language() -> str:\n    return 'de'\n",
            f"{SETTINGS}\n\ndef get_language() -> str:\n    return 'en'\n",
        ),
        (
            "pyproject.toml",
            PROJECT,
            f"{PROJECT}\n[tool.coverage.run]\nbranch = true\n",
            f"{PROJECT}\n[tool.coverage.run]\nparallel = true\n",
        ),
        (
            "constraints.txt",
            "anyio==1\n",
            "anyio==1\nyarl==1\n",
            "anyio==1\nyarl==2\n",
        ),
        (
            "ci.yml",
            WORKFLOW,
            WORKFLOW.replace("linux\n", "linux\n    timeout: 1\n"),
            WORKFLOW.replace("linux\n", "linux\n    timeout: 2\n"),
        ),
        ("new.yml", None, "name: mine\non: push\n", "name: theirs\non: push\n"),
        (
            "inner.py",
            SETTINGS,
            SETTINGS.replace("= 1\n", '= 1\n    host: str = "a"\n')
            + "\n\ndef mine() -> None: ...\n",
            SETTINGS.replace("= 1\n", '= 1\n    host: str = "b"\n'),
        ),
        (
            "routers.py",
            "from a import a\nfrom z import z\n",
            "from a import a\nfrom mine import router as export\nfrom z import z\n",
            "from a import a\nfrom theirs import router as export\nfrom z import z\n",
        ),
        ("constraints.txt", "anyio==1\n", "anyio==1\nPyYAML==6\n", "anyio==1\npyyaml==7\n"),
        ("odd.py", f'"""A\n{"=" * 7}\n"""\nx = 1\n', f'"""A\n{"=" * 7}\n"""\nx = 2\n', "x = 3\n"),
    ],
    ids=[
        "setting",
        "function",
        "table",
        "library",
        "key",
        "file",
        "inner",
        "import",
        "case",
        "marks",
    ],
)
def test_what_both_add_under_one_name_stays_a_conflict(
    shelf: Path, file: str, before: str | None, yours: str, template: str
) -> None:
    marked = conflict(shelf, file, before, yours, template)

    assert union_merge(shelf, [file]) == []

    assert (shelf / file).read_text("utf-8") == marked
    assert conflicted_files(shelf) == [file]


def locked(**versions: str) -> str:
    """As in requirements.txt; a hash belongs to one version."""
    pins = (
        f"{name}=={version} \\\n    --hash=sha256:{name}{version}a \\\n    --hash=sha256:{version}b\n"
        for name, version in versions.items()
    )
    return "".join(["# Do not edit it.\n", *pins])


@pytest.mark.parametrize(
    ("yours", "template", "merged"),
    [
        ({"idna": "3", "redis": "5"}, {"idna": "4"}, {"idna": "4", "redis": "5"}),
        ({"anyio": "1", "idna": "5"}, {"idna": "4"}, {"anyio": "1", "idna": "5"}),
        ({"idna": "4"}, {"httpx": "1", "idna": "10"}, {"httpx": "1", "idna": "10"}),
        ({"redis": "5"}, {"idna": "4"}, {"idna": "4", "redis": "5"}),
    ],
    ids=["added next to a raised one", "newer", "older", "dropped and raised"],
)
def test_a_library_keeps_the_hashes_of_its_version(
    shelf: Path, yours: dict[str, str], template: dict[str, str], merged: dict[str, str]
) -> None:
    conflict(shelf, "requirements.txt", locked(idna="3"), locked(**yours), locked(**template))

    assert union_merge(shelf, []) == ["requirements.txt"]

    assert (shelf / "requirements.txt").read_text("utf-8") == locked(**merged)


def test_a_locked_library_that_is_held_back_stays_a_conflict(shelf: Path) -> None:
    sides = [locked(idna=version) for version in ("3", "2", "4")]
    marked = conflict(shelf, "requirements.txt", *sides)

    assert union_merge(shelf, []) == []
    assert (shelf / "requirements.txt").read_text("utf-8") == marked


def test_a_library_that_is_held_back_is_not_raised() -> None:
    sides = {
        "before": b"starlette==1.10.0\n",
        "yours": b"starlette==1.9.0\n",
        "template": b"starlette==77\n",
    }

    assert newer_versions(sides) == sides


def test_of_two_raised_versions_the_newer_is_taken() -> None:
    sides = {"before": b"idna==3.9\n", "yours": b"idna==3.10\n", "template": b"idna==3.9.1\n"}

    assert newer_versions(sides)["template"] == b"idna==3.10\n"


def test_one_name_in_two_places_is_told_where_git_sees_no_conflict(shelf: Path) -> None:
    file = shelf / "settings.py"
    file.write_text(SETTINGS)
    git(shelf, "add", "--all")
    git(shelf, "commit", "--quiet", "-m", "Work")
    file.write_text(f"{SETTINGS}    one: int = 2\n")

    assert describe_duplicate_names(shelf, ["settings.py"]) == [
        "settings.py: both you and the template define Settings.one; keep one of the two"
    ]
    assert describe_duplicate_names(shelf, ["other.py"]) == []


def test_a_rejected_file_is_seen_also_where_git_ignores_it(shelf: Path) -> None:
    (shelf / ".gitignore").write_text("*.rej\n.venv/\n")
    (shelf / "logs.py").write_text("x = 1\n")
    git(shelf, "add", "--all")
    git(shelf, "commit", "--quiet", "-m", "Work")
    (shelf / "logs.py.rej").write_text("rejected\n")
    (shelf / ".venv").mkdir()
    (shelf / ".venv/somebody.rej").write_text("theirs\n")

    assert conflicted_files(shelf) == ["logs.py.rej"]


def answers(shelf: Path, commit: str) -> str:
    """Commit the answers file as of this version of the template; the commit that it makes."""
    (shelf / ".copier-answers.yml").write_text(f"_commit: {commit}\n")
    git(shelf, "add", "--all")
    git(shelf, "commit", "--quiet", "-m", "Work")
    return git(shelf, "rev-parse", "HEAD").strip()


def test_half_an_update_that_was_committed_is_noticed(shelf: Path) -> None:
    before = answers(shelf, "v1")
    begin_update(shelf)
    answers(shelf, "v2")

    assert committed_half_update(shelf) == before


def test_a_project_beside_another_one_has_a_mark_of_its_own(shelf: Path) -> None:
    (shelf / "a").mkdir()
    (shelf / "b").mkdir()
    answers(shelf / "a", "v1")
    before = answers(shelf / "b", "v1")
    begin_update(shelf / "a")
    answers(shelf / "a", "v2")

    begin_update(shelf / "b")
    end_update(shelf / "b")

    assert committed_half_update(shelf / "a") == before


def test_half_an_update_that_was_undone_is_not(shelf: Path) -> None:
    answers(shelf, "v1")
    begin_update(shelf)
    (shelf / "own.py").write_text("x = 1\n")
    git(shelf, "add", "--all")
    git(shelf, "commit", "--quiet", "-m", "More work")

    assert committed_half_update(shelf) is None
    end_update(shelf)
    assert not update_marker(shelf).exists()


def test_the_changelog_is_quoted_from_the_release_before_to_the_one_after(tmp_path: Path) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(
        "# Changelog\n\n## Unreleased\n\n## 0.10.0 - 2026-11-24\n\nMore.\n\nAfter updating: do\nthis.\n\n"
        "## 0.9.0\n\nAfter updating: do that.\n\n## 0.1.0\n\nAfter updating: nothing.\n"
    )

    assert [*release_notes(changelog, "v0.1.0", "v0.10.0-3-gabc")] == [
        "0.9.0: After updating: do that.",
        "0.10.0: After updating: do this.",
    ]
    assert [*release_notes(changelog, "v0.9.0", "v0.9.0")] == []
    assert [*release_notes(changelog, "0a1b2c3", "v0.10.0")] == []


def test_each_release_but_the_first_says_what_to_do_after_it() -> None:
    said = [*release_notes(ROOT / "CHANGELOG.md", "v0.1.0", "v1000.0.0")]

    versions = dict.fromkeys(note.partition(":")[0] for note in said)
    assert [*versions] == [*releases()][1:]


@pytest.mark.parametrize("commit", ["v0.6.0", "0.0.0.post1.dev0+c16fee5", "'2447682'"])
def test_the_version_of_an_answers_file_has_no_quotes(commit: str) -> None:
    """YAML needs them around a commit that consists of digits."""
    assert template_version(f"_commit: {commit}\n".encode()) == commit.strip("'")
