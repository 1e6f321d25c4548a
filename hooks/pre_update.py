"""Before `copier update --trust` changes anything: refuse to build on half of an earlier update."""

import sys
from pathlib import Path

from repository import (
    begin_update,
    committed_half_update,
    escape_unprintable_output,
    say,
    update_marker,
)


def main(project: Path) -> int:
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
