"""Images that `buildah` builds, and containers without an engine: namespaces and `chroot`."""

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.debian import make_debian

BASE = "docker.io/library/python:3.13-slim-trixie"
# `docker-compose config` needs no engine. It stays out of the image.
PACKAGES = "python3-venv,ca-certificates,docker-compose"
BASE_FILE = "FROM scratch\nADD . /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"


@dataclass(frozen=True)
class Images:
    """A store of images, with a Debian 13 and its Python 3.13 in place of the official base."""

    store: Path

    def buildah(self, *arguments: str | Path) -> str:
        options = [f"--root={self.store / 'root'}", f"--runroot={self.store / 'run'}"]
        command = ["buildah", *options, "--storage-driver=vfs", *map(str, arguments)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout.strip()

    def build(self, folder: Path, tag: str, *options: str) -> None:
        # Docker's format has the health check. The times of files are all the same, as with
        # BuildKit and SOURCE_DATE_EPOCH.
        usual = ["--isolation", "chroot", "--format", "docker", "--pull=never", "--timestamp", "0"]
        self.buildah("build", *usual, *options, "--tag", tag, folder)

    def add_base(self) -> None:
        debian = make_debian("trixie", PACKAGES)
        python = debian / "usr/local/bin/python"
        if not python.exists():
            python.symlink_to("/usr/bin/python3")
        ignored = ["usr/bin/docker-compose", "var/cache/apt/archives/*.deb", "var/lib/apt/lists"]
        with tempfile.TemporaryDirectory() as folder:
            (file := Path(folder, "Dockerfile")).write_text(BASE_FILE)
            (ignore := Path(folder, "ignore")).write_text("\n".join([*ignored, "srv", "ready"]))
            self.build(debian, BASE, "--file", str(file), "--ignorefile", str(ignore))

    def inspect(self, tag: str) -> dict[str, Any]:
        inspected: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", tag))
        return inspected

    def layers(self, tag: str) -> list[str]:
        return list(self.inspect(tag)["Docker"]["rootfs"]["diff_ids"])

    def mount(self, tag: str) -> Path:
        return Path(self.buildah("mount", self.buildah("from", "--pull=never", tag)))


def compose_config(project: Path, *options: str) -> dict[str, Any]:
    """What Compose makes of the project's compose.yaml and .env."""
    debian = make_debian("trixie", PACKAGES)
    shutil.rmtree(folder := debian / "srv/compose", ignore_errors=True)
    folder.mkdir(parents=True)
    for file in ("compose.yaml", ".env"):
        shutil.copy(project / file, folder)
    command = f"cd /srv/compose && docker-compose {shlex.join(options)} config --format json"
    run = subprocess.run(
        ["/usr/sbin/chroot", debian, "sh", "-c", command],
        env={"PATH": "/usr/bin:/bin", "HOME": "/root"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    config: dict[str, Any] = json.loads(run.stdout)
    return config


@dataclass(frozen=True)
class Container:
    """An image's root, read-only, with a service's settings, a volume, and no capabilities."""

    root: Path
    image: Mapping[str, Any]
    service: Mapping[str, Any]
    volume: Path

    def __post_init__(self) -> None:
        assert self.service["read_only"]
        assert self.service["tmpfs"] == ["/tmp"]
        assert self.service["cap_drop"] == ["ALL"]
        assert self.service["security_opt"] == ["no-new-privileges:true"]

    def command(self, *arguments: str) -> list[str]:
        """`docker run` with these arguments, or else with the service's or the image's."""
        chosen = [*arguments] or self.service.get("command") or self.image["Cmd"]
        return self.execute([*self.image["Entrypoint"], *chosen])

    def execute(self, words: list[str]) -> list[str]:
        """`docker exec` with these words. The process is the program itself, without a shell."""
        user, group = self.image["User"].split(":")
        root = shlex.quote(str(self.root))
        drop = f"--reuid={user} --regid={group} --clear-groups --bounding-set=-all --no-new-privs"
        variables = {**dict(v.split("=", 1) for v in self.image["Env"]), **self.environment}
        settings = shlex.join(f"{name}={value}" for name, value in variables.items())
        folder = shlex.quote(self.image["WorkingDir"])
        enter = f"cd {folder} && exec setpriv {drop} {shlex.join(words)}"
        script = f"""
            set -e
            mount --bind {root} {root}
            mount -o remount,bind,ro {root}
            mount --bind {shlex.quote(str(self.volume))} {root}/data
            mount -t tmpfs none {root}/tmp
            mount -t tmpfs none {root}/dev
            for device in null urandom random; do
                touch {root}/dev/$device
                mount --bind /dev/$device {root}/dev/$device
            done
            exec chroot {root} env -i {settings} sh -c {shlex.quote(enter)}
        """
        return ["unshare", "--mount", "sh", "-c", script]

    @property
    def environment(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.service["environment"]
        return found

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*arguments), stdin)

    def check_health(self) -> int:
        """Run the image's health check. Its exit code."""
        kind, *words = self.image["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self._run(self.execute(words)).returncode

    def _run(self, command: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
