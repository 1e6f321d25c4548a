"""The newest Pythons, in the folder of a Debian that has them, which `debootstrap` made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.debian import CERTIFICATES, make_debian
from tests.support.projects import Generate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no chroot"),
]

PACKAGES = "python3.14-venv,python3.15-venv,git,ca-certificates"


@pytest.fixture(scope="session")
def debian() -> Path:
    """The next release of Debian."""
    root = make_debian("forky", PACKAGES)
    shutil.copy(Path(sys.executable).with_name("uv"), root / "usr/local/bin/uv")
    return root


@pytest.mark.parametrize("version", ["3.14", "3.15"])
def test_a_project_is_set_up_tested_and_typed_on_a_new_python(
    debian: Path, generate: Generate, version: str
) -> None:
    python = debian / "usr/local/bin/python3"
    python.unlink(missing_ok=True)
    python.symlink_to(f"/usr/bin/python{version}")
    shutil.rmtree(debian / "srv/shelf", ignore_errors=True)
    shutil.copytree(generate().path, debian / "srv/shelf")
    environment = {
        "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "SSL_CERT_FILE": f"/{CERTIFICATES}",
    }
    commands = "./setup.sh && .venv/bin/python --version && .venv/bin/pytest -q && .venv/bin/mypy"

    run = subprocess.run(
        ["chroot", debian, "sh", "-c", f"cd /srv/shelf && {commands}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert f"Python {version}." in run.stdout
    assert " passed" in run.stdout
    assert "Success: no issues found" in run.stdout
