"""What was released stays as it was released."""

import json
import re
import subprocess
import tomllib

from post_update import version as numbers_of
from tests.support.projects import ROOT
from tests.update.edits import git
from tools.releases import releases

VERSIONS = "template/alembic/versions"


def test_a_released_migration_is_never_edited() -> None:
    """Somebody's database may be in the middle of it."""
    for version, commit in releases().items():
        files = git(ROOT, "ls-tree", "--name-only", commit, "--", f"{VERSIONS}/").split()
        assert files, version
        for file in files:
            show = ["git", "show", f"{commit}:{file}"]
            released = subprocess.run(show, cwd=ROOT, capture_output=True, check=True).stdout
            assert (ROOT / file).read_bytes() == released, (version, file)


def test_the_tenth_release_comes_after_the_ninth() -> None:
    assert numbers_of("v0.9.0") < numbers_of("0.10.0")
    assert not numbers_of("v0.10.0") < (0, 9)
    assert not numbers_of("v0.9.0") < (0, 9)


def test_every_release_is_in_this_history_in_order_and_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    commits = list(releases().values())

    for older, newer in zip(commits, [*commits[1:], "HEAD"], strict=True):
        git(ROOT, "merge-base", "--is-ancestor", older, newer)
    package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert package["version"] == [*releases()][-1]
    headings = [line[3:] for line in changelog.splitlines() if line.startswith("## ")]
    assert [heading.partition(" - ")[0] for heading in headings] == [
        "Unreleased",
        *reversed(releases()),
    ]
    assert all(re.fullmatch(r"\S+ - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_the_list_of_releases_is_kept_readable() -> None:
    text = (ROOT / "tools/releases.json").read_text("utf-8")

    assert text == json.dumps(releases(), indent=2) + "\n"
