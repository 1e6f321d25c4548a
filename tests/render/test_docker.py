"""The docker option: what it adds, and what its files hold."""

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.render.test_github import different
from tests.support.projects import Generate

FILES = {".dockerignore", "Dockerfile", "compose.yaml", "deploy/litestream.yml"}
WORKFLOW = ".github/workflows/image.yml"


def test_docker_changes_no_file_of_the_program(generate: Generate) -> None:
    with_docker, without = generate(docker=True), generate(docker=False)

    assert {*map(str, with_docker.files())} - {*map(str, without.files())} == {*FILES, WORKFLOW}
    assert different(with_docker, without) == {".copier-answers.yml", "docs/operating.md"}
    assert without.mentions("docker") == [".copier-answers.yml"]
    assert without.mentions("litestream") == []


def test_hadolint_finds_nothing_in_the_dockerfile(generate: Generate) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    program = hadolint if hadolint.exists() else shutil.which("hadolint")
    assert program, "hadolint is missing: install requirements-dev.txt again"
    command = [program, "--failure-threshold", "style", "Dockerfile"]

    run = subprocess.run(command, cwd=generate().path, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


def test_the_image_gets_no_settings_and_no_database(generate: Generate) -> None:
    """Everything is ignored but what the Dockerfile copies."""
    project = generate()
    rules = [r for r in project.read(".dockerignore").splitlines() if not r.startswith("#")]
    allowed = {rule.strip("!/") for rule in rules if rule.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", project.read("Dockerfile"), re.MULTILINE)

    assert rules[0] == "*"
    assert allowed == {file for files in copied for file in files.split()}
    assert not [name for name in allowed if not project.has(name)]
    inside = [rule for rule in rules[1:] if not rule.startswith("!")]
    for secret in (".env", "app.db", "app.db-wal", "__pycache__"):
        assert any(fnmatch.fnmatch(secret, rule.removeprefix("**/")) for rule in inside), secret


def test_each_service_of_the_app_has_few_rights(generate: Generate) -> None:
    services = load(generate().path / "compose.yaml")["services"]

    assert set(services) == {"migrate", "app", "litestream", "restore", "postgres"}
    for name in ("migrate", "app", "litestream", "restore"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    assert services["app"]["ports"] == ["127.0.0.1:8001:8001"]
    assert [name for name, service in services.items() if "profiles" in service] == [
        "litestream",
        "restore",
        "postgres",
    ]


def test_no_log_of_a_service_grows_without_end(generate: Generate) -> None:
    services = load(generate().path / "compose.yaml")["services"].values()

    assert {service["logging"]["driver"] for service in services} == {"local"}


def test_the_images_have_exact_versions(generate: Generate) -> None:
    project = generate()
    bases = set(re.findall(r"^FROM (\S+)", project.read("Dockerfile"), re.MULTILINE))
    services = load(project.path / "compose.yaml")["services"].values()
    images = {service["image"] for service in services} - {"my-app"}

    assert bases == {"python:3.13-slim-trixie"}
    assert all(re.search(r":\d", image) for image in images)


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return loaded
