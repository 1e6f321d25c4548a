"""The commands that the documents show for Windows."""

import re
import tomllib

import pytest
import tree_sitter_pwsh
from tree_sitter import Language, Node, Parser

from tests.support.projects import ROOT

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("template/*.md.jinja"),
        *ROOT.glob("template/docs/*"),
    ]
)
POWERSHELL = Parser(Language(tree_sitter_pwsh.language()))


def blocks(language: str) -> list[str]:
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [block for document in DOCUMENTS for block in fence.findall(document.read_text("utf-8"))]


def faults(code: str) -> list[str]:
    """The parts that do not parse as PowerShell."""

    def look(node: Node) -> list[str]:
        if node.type == "ERROR" or node.is_missing:
            return [code[node.start_byte : node.end_byte] or node.type]
        return [fault for child in node.children for fault in look(child)]

    return look(POWERSHELL.parse(code.encode()).root_node)


@pytest.mark.parametrize("block", blocks("powershell"))
def test_what_is_shown_for_powershell_is_powershell(block: str) -> None:
    assert faults(block) == []
    # The one that comes with Windows has no such operators.
    assert not re.search(r"&&|\|\|", block)
    assert "/bin/" not in block


def test_what_is_no_powershell_is_seen() -> None:
    assert faults("$env:A = 'x\n")
    assert faults("if ($x { 1 }\n")


def test_every_program_of_the_environment_has_its_place_on_windows_named_too() -> None:
    for document in ("README.md", "template/README.md.jinja"):
        text = (ROOT / document).read_text("utf-8")
        assert ".venv/bin/uvicorn" in text, document
        assert ".venv\\Scripts\\uvicorn" in text, document


def test_the_badges_of_the_readme_are_true() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = [c.rpartition(" ")[2] for c in package["classifiers"] if "Python :: 3." in c]
    badges = re.findall(r"badge/(\S+)-blue\)", (ROOT / "README.md").read_text("utf-8"))

    assert badges[0] == f"python-{found[0]}_to_{found[-1]}"
    assert badges[2] == f"license-{package['license']}"
    assert (ROOT / "LICENSE").read_text("utf-8").startswith(f"{package['license']} License")


def cells(text: str) -> list[list[str]]:
    """The rows of the tables of a document."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_numbers_of_the_readme_are_goals_that_were_reached() -> None:
    numbers = (ROOT / "README.md").read_text("utf-8").partition("## Numbers")[2]
    promised = cells(numbers.partition("\n## ")[0])[2:]
    measured = cells((ROOT / "docs/performance.md").read_text("utf-8"))
    reached = {(row[0], row[3]) for row in measured if row[-1] == "reached"}
    names = {name for name, _ in reached}

    assert len(promised) > 4
    for what, goal in promised:
        figure = re.match(r"[\d.]+x|[\d.]+ \w+", goal)
        assert figure
        assert [name for name in names if name.startswith(what)], what
        assert any(name.startswith(what) and at == figure[0] for name, at in reached), what


def test_the_figures_are_those_of_the_newest_release() -> None:
    """Fails after a release until `python -m benchmarks` has measured it."""
    package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    measured = re.findall(r"^(?:Release ([\d.]+)|(Unreleased)), Python", text, re.MULTILINE)

    assert len(measured) == 1
    assert {*measured[0]} & {package["project"]["version"], "Unreleased"}
