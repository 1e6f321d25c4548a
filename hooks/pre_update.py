"""Before `copier update --trust` changes anything: refuses to build on half of an earlier update."""

import sys
from pathlib import Path

from console import escape_what_cannot_be_printed, say
from interrupted import begin, committed_half, marker


def main() -> int:
    project = Path.cwd()
    commit = committed_half(project)
    if commit:
        say(
            "an earlier update was interrupted, and what it left was committed: lines of yours may be",
            f"missing. `git diff {commit[:10]} HEAD` shows what changed since. To start over, go back to",
            f"{commit[:10]} and update again. If nothing is missing, delete {marker(project)}",
        )
        return 1
    begin(project)
    return 0


if __name__ == "__main__":
    escape_what_cannot_be_printed()
    sys.exit(main())
