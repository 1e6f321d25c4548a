"""A bare machine: a PATH with a few tools, an empty home, and optionally no network."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.support.projects import ROOT

# What setup.sh and git's own scripts call.
TOOLS = [
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "dirname",
    "env",
    "expr",
    "find",
    "git",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mv",
    "realpath",
    "rm",
    "sed",
    "sh",
    "sort",
    "tail",
    "touch",
    "tr",
    "uname",
    "wc",
]
# Access to the package index is kept; every other variable is removed.
KEPT = ("PIP_", "UV_", "SSL_", "LANG", "LC_", "SYSTEMROOT")


def base_python() -> str:
    """The interpreter that this environment was made from."""
    return str(getattr(sys, "_base_executable", sys.executable))


@dataclass
class Machine:
    """Commands see only these tools."""

    home: Path
    tools: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bin = self.home / "bin"
        self.bin.mkdir(parents=True)
        for name in TOOLS:
            self.add(name, shutil.which(name) or sys.exit(f"{name} is not on this machine"))
        for name, program in self.tools.items():
            self.add(name, program)

    def add(self, name: str, program: str) -> None:
        (self.bin / name).symlink_to(program)

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.com"))
        }
        return {**kept, **identity, "PATH": str(self.bin), "HOME": str(self.home)}

    def popen(
        self,
        *command: str | Path,
        cwd: Path,
        online: bool = True,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.Popen[str]:
        """Start a command in a new process group."""
        offline = (
            [] if online else [shutil.which("unshare") or "unshare", "--net", "--map-root-user"]
        )
        return subprocess.Popen(
            [*offline, *map(str, command)],
            cwd=cwd,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(
        self,
        *command: str | Path,
        cwd: Path,
        online: bool = True,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, str]:
        """The exit code of a command, and all that it said."""
        process = self.popen(*command, cwd=cwd, online=online, environment=environment)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output


def check_out(folder: Path) -> Path:
    """This repository as a fresh clone of its working tree would be, committed."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True)
    return folder


def quick_folder() -> str:
    """Memory, if there is enough of it: the databases of hundreds of tests need no disk."""
    memory = Path("/dev/shm")
    enough = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    return str(memory) if enough else tempfile.gettempdir()
