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
    for version, commit in releases().items():
        command = ["git", "-C", str(repository), "tag", f"v{version}", commit]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            there = ["git", "-C", str(repository), "rev-parse", f"v{version}^{{commit}}"]
            run = subprocess.run(there, capture_output=True, text=True, check=False)
            if run.stdout.strip() != commit:
                sys.exit(
                    f"v{version} can't be tagged at {commit}: "
                    + (
                        "fetch the full history first"
                        if run.returncode
                        else "the tag exists elsewhere"
                    )
                )


if __name__ == "__main__":
    tag(ROOT)
