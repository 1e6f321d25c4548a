"""Makes the pictures of the documents: `python -m tools.pictures [creation] [update] [pages]`.

A picture of a terminal shows what a real run printed, in a pseudoterminal. A clone of this
repository, with the next release tagged, takes the place of the published template. A file whose
text has not changed, apart from the seconds, stays as it is. The runs install packages.
"""

import fcntl
import io
import itertools
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.support.projects import Project
from tests.update.edits import live_with
from tools.releases import releases, tag

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"
WIDTH, HEIGHT = 92, 400
CREATE = re.compile(r"^uvx copier copy --trust --quiet (\S+) (\S+)$", re.MULTILINE)
UPDATE = ".venv/bin/copier update --trust --defaults"
# Every question, and the offer of a first commit: Enter keeps the default.
QUESTIONS = [
    "What is the app called",
    "What does the app do",
    "Add user",
    "Add GitHub",
    "Dockerfile",
    "[Y/n]",
]
NEW_FILE = re.compile(r" +create  ")
# What differs between runs of the same commands.
SECONDS = re.compile(r"\b\d+ s\b")
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def play(command: str, folder: Path, home: Path, replies: Sequence[str] = ()) -> bytes:
    """What a command prints on a terminal, where Enter is pressed after each of these texts."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    process = subprocess.Popen(
        shlex.split(command),
        cwd=folder,
        env=environment(home),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    output, seen, waiting = b"", 0, [reply.encode() for reply in replies]
    while (part := read(ours)) is not None:
        output += part
        if waiting and waiting[0] in output[seen:]:
            waiting.pop(0)
            seen = len(output)
            time.sleep(0.5)
            os.write(ours, b"\r")
    os.close(ours)
    if process.wait():
        sys.exit(f"{command} failed:\n{output.decode(errors='replace')}")
    return output


def read(terminal: int) -> bytes | None:
    """The next part of the output; None at its end."""
    while not select.select([terminal], [], [], 600)[0]:
        sys.exit("nothing was printed for ten minutes")
    try:
        return os.read(terminal, 65536) or None
    except OSError:
        return None


def environment(home: Path) -> dict[str, str]:
    """A user named Ada, with this environment's uv and access to the package index."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL_"))}
    path = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    cache = Path.home() / ".cache"
    return {
        "UV_CACHE_DIR": str(cache / "uv"),
        "PIP_CACHE_DIR": str(cache / "pip"),
        **kept,
        "HOME": str(home),
        "PATH": ":".join(path),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }


def settle(folder: Path, address: str) -> Path:
    """A home whose git takes a clone of this repository for the published template."""
    home, clone = folder / "ada", folder / "template.git"
    home.mkdir()
    git = ["git", "-c", "advice.detachedHead=false", "-C", str(clone)]
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    tag(clone)
    major, minor, _ = list(releases())[-1].split(".")
    subprocess.run([*git, "tag", f"v{major}.{int(minor) + 1}.0"], check=True)
    plain = address.removesuffix(".git").replace("gh:", "https://github.com/", 1)
    (home / ".gitconfig").write_text(
        "[user]\nname = Ada\nemail = ada@example.com\n[init]\ndefaultBranch = main\n"
        f'[url "{clone}"]\ninsteadOf = {plain}.git\ninsteadOf = {plain}\n',
        "utf-8",
    )
    return home


def screen(output: bytes) -> list[Text]:
    """The lines that the output leaves on a terminal."""
    emulator = pyte.Screen(WIDTH, HEIGHT)
    pyte.ByteStream(emulator).feed(output)
    lines = []
    for row in range(HEIGHT):
        cells = [emulator.buffer[row][column] for column in range(WIDTH)]
        line = Text()
        for style, run in itertools.groupby(cells, look):
            line.append("".join(cell.data for cell in run), style)
        line.rstrip()
        lines.append(line)
    return lines


def look(cell: pyte.screens.Char) -> Style:
    color = "yellow" if cell.fg == "brown" else cell.fg
    if re.fullmatch("[0-9a-f]{6}", color):
        color = f"#{color}"
    return Style(color=color.replace("bright", "bright_"), bold=cell.bold, italic=cell.italics)


def shorten(lines: Sequence[Text], home: Path) -> Iterator[Text]:
    """Without the list of new files, without Copier's own commands, and without two empty lines."""
    before, is_command = "", False
    for line in itertools.dropwhile(is_empty, lines):
        is_command = line.plain.startswith(" > Running") or (
            is_command and not line.plain.startswith("[")
        )
        if is_command or (is_empty(line) and not before):
            continue
        if not NEW_FILE.match(line.plain):
            yield at_home(line, home)
        elif not NEW_FILE.match(before):
            count = sum(bool(NEW_FILE.match(other.plain)) for other in lines)
            yield Text(f"    create  ... {count} files and folders", "green")
        before = line.plain


def is_empty(line: Text) -> bool:
    return not line.plain


def at_home(line: Text, home: Path) -> Text:
    """With a path as Ada would see it."""
    before, found, after = line.plain.partition(str(home))
    if not found:
        return line
    return Text.assemble(line[: len(before)], "/home/ada", line[len(line) - len(after) :])


def draw(title: str, command: str, lines: Sequence[Text]) -> str:
    """A picture of a terminal, with its own background, for light and dark pages."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bright_black"), (command, "bold")))
    console.print(Text("\n").join(lines))
    # Without the font of another server: every reader has a monospaced one.
    return FONT.sub("", console.export_svg(title=title, unique_id="terminal"))


def publish(name: str, picture: str) -> None:
    file = PICTURES / name
    text = "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"
    now = file.read_text("utf-8") if file.exists() else ""
    if SECONDS.sub("", now) == SECONDS.sub("", text):
        print(f"{name}: unchanged")
        return
    file.write_text(text, "utf-8")
    print(f"{name}: written")


def published() -> tuple[str, str]:
    """The address and the folder that the README shows."""
    shown = CREATE.search((ROOT / "README.md").read_text("utf-8"))
    if shown is None:
        sys.exit("README.md shows no line that begins with: uvx copier copy --trust --quiet")
    return shown[1], shown[2]


def show_creation(folder: Path) -> None:
    address, name = published()
    home = settle(folder, address)
    command = f"uvx copier copy --trust --quiet {address} {name}"
    lines = shorten(screen(play(command, home, home, QUESTIONS)), home)
    publish("creation.svg", draw("Create a project", command, [*lines]))


def show_update(folder: Path) -> None:
    """A project of the last release that someone has worked on."""
    address, name = published()
    home = settle(folder, address)
    version = f"v{list(releases())[-1]}"
    command = f"copier copy --trust --defaults --vcs-ref {version} {address} {name}"
    play(command, home, home, QUESTIONS[-1:])
    project = Project(home / name, {})
    live_with(project)
    lines = shorten(screen(play(UPDATE, project.path, home)), home)
    publish("update.svg", draw("Update a project", UPDATE, [*lines]))


def show_pages(_: Path) -> None:
    """The browser tests take these."""
    tests = [sys.executable, "-m", "pytest", "-q", "tests/browser", "-k", "pictures"]
    subprocess.run(tests, cwd=ROOT, env={**os.environ, "PICTURES": str(PICTURES)}, check=True)


SHOWN = {"creation": show_creation, "update": show_update, "pages": show_pages}

if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SHOWN:
        with tempfile.TemporaryDirectory() as new:
            SHOWN[name](Path(new))
