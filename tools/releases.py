"""The releases of the template: `python -m tools.releases` tags them in this clone.

CONTRIBUTING.md describes how to make one.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def releases() -> dict[str, str]:
    """Version → commit, oldest first."""
    found: dict[str, str] = json.loads((ROOT / "tools/releases.json").read_text("utf-8"))
    return found


def tag(repository: Path) -> None:
    """Tag every release. An existing tag must match the list."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for version, commit in releases().items():
        if git("tag", f"v{version}", commit).returncode == 0:
            continue
        there = git("rev-parse", f"v{version}^{{commit}}")
        if there.stdout.strip() != commit:
            reason = "fetch the full history first" if there.returncode else "the tag is elsewhere"
            sys.exit(f"v{version} can't be tagged at {commit}: {reason}")


if __name__ == "__main__":
    tag(ROOT)
