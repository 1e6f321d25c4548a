"""The address of this repository is declared once, and every other place follows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.machines import check_out
from tests.support.projects import ROOT
from tools.address import declared, forms, problem

NEW = "https://git.example.com/books/shelf-template.git"
# Whatever names a repository or its pages by this name.
NAMED = re.compile(r"[\w.@:/-]+[/:][\w.-]+/copier-fastapi\b|[\w-]+\.github\.io/copier-fastapi\b")
# What a machine may call a clone of this repository.
OTHERS = ("/tmp/", "/work/", "~/", ".cache/")


def tracked_files(root: Path) -> list[Path]:
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    return [root / name for name in listing.stdout.split("\0") if name and (root / name).is_file()]


def test_every_place_names_the_address_that_is_declared() -> None:
    address = declared()
    stray = [
        f"{file.relative_to(ROOT)}: {found}"
        for file in tracked_files(ROOT)
        for found in NAMED.findall(file.read_bytes().decode("utf-8", "replace"))
        if not any(form in found for form in forms(address)) and not found.startswith(OTHERS)
    ]

    assert stray == []
    assert yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))["address"]["default"] == address
    for name in ("README.md", "create_project.py"):
        assert address in (ROOT / name).read_text("utf-8"), name


def test_one_command_changes_the_address_everywhere(tmp_path: Path) -> None:
    copy = check_out(tmp_path)
    old = forms(declared(copy))

    run = subprocess.run([sys.executable, "-m", "tools.address", NEW], cwd=copy, check=False)

    assert run.returncode == 0
    assert declared(copy) == NEW
    texts = {file: file.read_bytes().decode("utf-8", "replace") for file in tracked_files(copy)}
    assert [file for file, text in texts.items() if any(form in text for form in old)] == []
    assert f"uvx copier copy --trust --quiet {NEW} my_new_app" in texts[copy / "README.md"]


@pytest.mark.parametrize(
    "address",
    ["copier-fastapi", "https://github.com/books", "https://git.example.com/books/shelf"],
)
def test_an_address_that_copier_would_not_clone_is_refused(address: str) -> None:
    assert problem(address)
    assert problem(NEW) is None
    assert problem("https://github.com/books/shelf") is None
