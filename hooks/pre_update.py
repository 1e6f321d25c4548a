"""Before `copier update --trust` changes anything: refuse what would lose lines."""

import sys
from pathlib import Path

from repository import (
    begin_update,
    committed_half_update,
    escape_unprintable_output,
    git,
    say,
    update_marker,
)


def main(project: Path) -> int:
    if git(project, "config", "--get", "status.showUntrackedFiles").strip() == "no":
        say(
            "git is configured to hide untracked files, but Copier looks for them to merge your lines.",
            "Run `git config --local status.showUntrackedFiles normal`, then update again.",
        )
        return 1
    commit = committed_half_update(project)
    if commit:
        say(
            "an earlier update was interrupted, and its unfinished result was committed: some of your",
            f"lines may be missing. `git diff {commit[:10]} HEAD` shows what changed since. To start",
            f"over, go back to {commit[:10]} and update again. If nothing is missing, delete",
            f"{update_marker(project)}",
        )
        return 1
    begin_update(project)
    return 0


if __name__ == "__main__":
    escape_unprintable_output()
    sys.exit(main(Path.cwd()))
