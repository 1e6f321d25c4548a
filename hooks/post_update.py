"""After `copier update --trust`, once, in the merged project: says what is left to do."""

import subprocess
from pathlib import Path

from set_up import SCRIPT


def conflicts(project: Path) -> list[str]:
    """Files, relative to the project, that the update could not merge."""

    def git(*arguments: str) -> set[str]:
        command = ["git", *arguments, "-z"]
        run = subprocess.run(command, cwd=project, capture_output=True, check=True)
        return set(run.stdout.decode("utf-8", "surrogateescape").split("\0")) - {""}

    unmerged = git("diff", "--name-only", "--diff-filter=U", "--relative")
    rejected = git("ls-files", "--others", "--exclude-standard", "*.rej")
    return sorted(unmerged | rejected)


def main() -> None:
    project = Path.cwd()
    if files := conflicts(project):
        print("\nThe update and your changes meet in these files. Mend them first:")
        print(*(f"    {file}" for file in files), sep="\n")
    print(f"\nThen run {SCRIPT}: it installs what is new and migrates the database.", flush=True)


if __name__ == "__main__":
    main()
