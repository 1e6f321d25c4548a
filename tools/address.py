"""Change the address of this repository: `python -m tools.address https://github.com/you/name`.

pyproject.toml declares it under [project.urls]. Every other file that names it is rewritten.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]


def declared(root: Path = ROOT) -> str:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["urls"]["repository"])


def forms(address: str) -> list[str]:
    """What documents write: the address, its pages on GitHub, and owner/name, as in badges."""
    path = urlsplit(address).path.strip("/").removesuffix(".git")
    owner, _, name = path.partition("/")
    return [address, f"{owner}.github.io/{name}", path]


def problem(address: str) -> str | None:
    """Why Copier would not clone this address."""
    if not address.startswith("https://") or urlsplit(address).path.count("/") < 2:
        return "write it as https://host/owner/name"
    if not address.startswith(("https://github.com/", "https://gitlab.com/")):
        return None if address.endswith(".git") else "outside GitHub and GitLab, it ends with .git"
    return "on GitHub and GitLab, it does not end with .git" if address.endswith(".git") else None


def change(new: str, root: Path = ROOT) -> list[str]:
    """Rewrite every tracked file; which ones changed."""
    pairs = list(zip(forms(declared(root)), forms(new), strict=True))
    changed = []
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True)
    for name in listing.stdout.decode("utf-8").split("\0"):
        file = root / name
        if not name or not file.is_file():
            continue
        before = file.read_bytes()
        after = before
        for old, replacement in pairs:
            after = after.replace(old.encode(), replacement.encode())
        if after != before:
            file.write_bytes(after)
            changed.append(name)
    return changed


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(f"{declared()}\nTo change it, run: python -m tools.address NEW", file=sys.stderr)
        return 2
    new = sys.argv[1].rstrip("/")
    if reason := problem(new):
        print(f"{new}: {reason}", file=sys.stderr)
        return 1
    print(*change(new), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
