"""Running the set-up script of a generated project: the only place where set-up is written."""

import os
import subprocess
from pathlib import Path

SCRIPT = ".\\setup.bat" if os.name == "nt" else "./setup.sh"


def set_up(project: Path) -> bool:
    """Run the project's own set-up script, its output in view; tell whether it succeeded."""
    command = ["cmd", "/c", SCRIPT] if os.name == "nt" else ["sh", SCRIPT]
    return subprocess.run(command, cwd=project, check=False).returncode == 0
