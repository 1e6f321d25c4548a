"""Checks the English of everything that people read: `python -m tools.prose [FILE ...]`.

The list of words below applies to all prose: Markdown without its code, the strings and comments of
Python, the lines of everything else. Documents go through proselint, too, which is slow.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from proselint.config import default as proselint_defaults
from proselint.tools import lint

ROOT = Path(__file__).resolve().parents[1]
MAX_LINE = 100

# What reads as if translated, and what to write instead.
HOUSE_WORDS = {
    r"\bset-ups?\b": "setup (noun) or set up (verb)",
    r"\blog-(in|out)s?\b": "login or logout (nouns), log in or log out (verbs)",
    r"\be-mail": "email",
    r"\b(an?|each|every|another|this) mail\b(?! server| program)|(?<=\w )mails\b": "email",
    r"\bsign-(in|up)\b": "login, registration",
    r"\banew\b": "again",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bbeside\b": "next to",
    r"\bbeneath\b": "under",
    r"\bupon\b": "on",
    r"\b(of|on) (its|their|one's) own\b": "its own ..., separate",
    r"\bone's\b": "your, or name whose it is",
    r"\bthat which\b": "what, or name it",
    r"\bmeanwhile\b": "while it waits, in the meantime",
    r"\bwho(so)?ever\b|\bwhomever\b|\bwhom\b": "name the person: the user, the caller, the owner",
    r"\bnobody\b": "no one, or say who can",
    r"\b(as it is|as|is) born\b": "as generated, new",
    r"\bstands? (above|below|in|there)\b": "is, appears",
    r"(?<!there )\b(is|are) no\b(?! longer\b| more\b| one\b)": "is not a, has no, invalid, missing",
    r"\b(is|are|was|were) not to\b": "must not",
    r"\bthere (is|are) not\b": "unknown, missing",
    r"\bshall\b": "should, will, do you want",
    r"\bhence\b|\b(there|where)(by|of|in)\b": "so, because, by which",
    r"\bhalf-way\b": "halfway",
    r"\bfor ever\b": "forever",
    r"\bto be had\b": "available",
    r"\ball the while\b": "while it runs",
    r"\bunfit\b": "invalid",
    r"\b(fast|slow|both|either|each) rings?\b": "tests, slow tests",
    r"(?<!\.)\bseams?\b": "merge point",
    r"\bmisspelt\b": "misspelled",
    r"\bby turns\b|\bin vain\b|\bof late\b": "plain words",
}
HOUSE = [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in HOUSE_WORDS.items()]

# The rest of proselint: typography that plain text has no room for, and what code is full of.
OFF = {"consistency.spacing", "security.password", "typography.symbols", "weasel_words.very"}
PROSELINT = {
    **proselint_defaults,
    "checks": {
        name: is_on and name not in OFF for name, is_on in proselint_defaults["checks"].items()
    },
}

READ = {".bat", ".example", ".html", ".ini", ".mako", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
# Made by a tool, written by others, released, or about these words.
NOT_READ = {
    "requirements-dev.txt",
    "LICENSE",
    "e58b1f0c27d4_outgoing_mails.py",
    "prose.py",
    "test_prose.py",
}
CODE_SPAN = re.compile(r"(`+).+?\1|<[^>\n]+>|\]\([^)]*\)|https?://\S+|{{.*?}}|{%.*?%}|\$\{.*?\}")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
STYLE = re.compile(r"<(style|script)\b.*?</\1>", re.DOTALL)


def blank(match: re.Match[str]) -> str:
    """Spaces instead of it, so that lines and columns stay."""
    return re.sub(r"[^\n]", " ", match[0])


def suffix(file: Path) -> str:
    return Path(file.name.removesuffix(".jinja")).suffix


def prose_of_python(source: str, *, with_data: bool = True) -> str:
    """Each string and comment, in the line where it begins; of data, only docstrings."""
    lines: dict[int, list[str]] = {}

    def add(first: int, text: str) -> None:
        for number, line in enumerate(text.split("\n"), first):
            lines.setdefault(number, []).append(line.strip())

    nodes = list(ast.walk(ast.parse(source)))
    if not with_data:
        nodes = [node.value for node in nodes if isinstance(node, ast.Expr)]
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            add(node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            add(token.start[0], token.string.lstrip("#: "))
    # A full stop between two that have nothing to do with each other.
    return "\n".join(" . ".join(lines.get(n, [])) for n in range(1, max(lines, default=0) + 1))


def without_jinja(source: str) -> str:
    """A template of a Python file, as near to Python as it gets."""
    source = re.sub(r"^ *{%.*?%}$", "", source, flags=re.MULTILINE)
    return re.sub(r"{{.*?}}|{%.*?%}", "x", source)


def prose(file: Path) -> str:
    """What a person reads in a file, in the lines where it is; the rest is blank."""
    text = file.read_text("utf-8")
    kind = suffix(file)
    if kind == ".py":
        text = without_jinja(text) if file.suffix == ".jinja" else text
        # The strings of tests are data, such as usernames.
        text = prose_of_python(text, with_data="tests" not in file.parts)
    elif kind == ".md":
        text = FENCE.sub(blank, text)
    elif kind == ".html":
        text = STYLE.sub(blank, text)
    return CODE_SPAN.sub(blank, text)


def long_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines of Markdown that could be wrapped: tables and links can't."""
    text = FENCE.sub(blank, file.read_text("utf-8"))
    for number, line in enumerate(text.split("\n"), 1):
        is_table = line.startswith("|")
        if len(line) > MAX_LINE and not is_table and " " in line[:MAX_LINE].strip():
            yield number, f"{len(line)} columns: wrap at {MAX_LINE}"


def findings(file: Path) -> list[tuple[int, str]]:
    """(line, what to change) for everything in a file."""
    text = prose(file)
    found = [
        (text.count("\n", 0, match.start()) + 1, f'"{match[0]}": write {advice}')
        for pattern, advice in HOUSE
        for match in pattern.finditer(text)
    ]
    if suffix(file) == ".md":
        found += [(line + 1, message) for _, message, line, *_ in lint(text, config=PROSELINT)]
        found += long_lines(file)
    return sorted(found)


def what_people_read() -> list[Path]:
    """Every file of this repository with prose in it, committed or not."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({ROOT / name for name in listed if name and has_prose(ROOT / name)})


def has_prose(file: Path) -> bool:
    return file.name not in NOT_READ and suffix(file) in READ and file.is_file()


def main(files: Iterable[Path]) -> int:
    found = [(file, line, text) for file in files for line, text in findings(file)]
    for file, line, text in found:
        print(f"{file.relative_to(ROOT)}:{line}: {text}")
    return 1 if found else 0


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or what_people_read()
    sys.exit(main(filter(has_prose, chosen)))
