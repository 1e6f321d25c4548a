"""The releases of the template: `python -m tests.releases` tags them in this clone.

tests/releases.json is the list. A release is a line there, one in CHANGELOG.md and the tag.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def releases() -> dict[str, str]:
    """Version → commit, the oldest first."""
    found: dict[str, str] = json.loads((ROOT / "tests/releases.json").read_text("utf-8"))
    return found


def tag(repository: Path) -> None:
    """Tag every release; a tag that is there already must be that of the list."""
    for version, commit in releases().items():
        command = ["git", "-C", str(repository), "tag", f"v{version}", commit]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            there = ["git", "-C", str(repository), "rev-parse", f"v{version}^{{commit}}"]
            run = subprocess.run(there, capture_output=True, text=True, check=False)
            if run.stdout.strip() != commit:
                sys.exit(
                    f"v{version} can't be tagged as {commit}: "
                    + ("fetch the whole history" if run.returncode else "it is somewhere else")
                )


if __name__ == "__main__":
    tag(ROOT)
