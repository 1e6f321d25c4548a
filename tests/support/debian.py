"""The folder of another release of Debian, which `debootstrap` makes once."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "copier-fastapi"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def debian_mirror() -> str:
    """The one that this machine's apt uses."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(file.read_text("utf-8") for file in sources if file.is_file())
    found = re.search(r"https?://\S+/debian/?(?=\s)", text)
    if not found:
        pytest.fail("apt names no mirror of Debian, and these tests need one")
    return found[0]


def make_debian(suite: str, packages: str) -> Path:
    """A minimal Debian with these packages. Made once, and kept in the user's cache."""
    root = CACHE / f"debian-{suite}"
    if not (root / "ready").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        options = ["--variant=minbase", f"--include={packages}"]
        mirror = debian_mirror()
        # The debootstrap of Debian 12 may not know the name, but every suite has the same script.
        script = "/usr/share/debootstrap/scripts/sid"
        subprocess.run(["debootstrap", *options, suite, str(root), mirror, script], check=True)
        (root / "ready").touch()
    # As on this machine, whose network may have its own certificate.
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy(Path("/") / CERTIFICATES, root / CERTIFICATES)
    return root
