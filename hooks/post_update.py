"""After `copier update --trust`, once, in the merged project: says what is left to do."""

import subprocess
from pathlib import Path

from set_up import SCRIPT


def conflicts(project: Path) -> list[str]:
    """Files, relative to the project, that the update could not merge."""
    unmerged = subprocess.run(
        ["git", "diff", "--name-only", "--diff-filter=U", "--relative", "-z"],
        cwd=project,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    ).stdout.split("\0")
    rejected = [file.relative_to(project).as_posix() for file in project.rglob("*.rej")]
    return sorted({*filter(None, unmerged), *rejected})


def main() -> None:
    project = Path.cwd()
    if files := conflicts(project):
        print("\nThe update and your changes meet in these files. Mend them first:")
        print(*(f"    {file}" for file in files), sep="\n")
    print(f"\nThen run {SCRIPT}: it installs what is new and migrates the database.", flush=True)


if __name__ == "__main__":
    main()
