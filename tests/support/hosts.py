"""A host with a real systemd as its first process, on a copy-on-write copy of this machine's files.

It has its own processes, network and cgroups. What it writes is in memory, and goes with it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.clusters import find, wait_until

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none {base}
mkdir {base}/upper {base}/work {root}
mount -t overlay overlay -o lowerdir=/,upperdir={base}/upper,workdir={base}/work {root}
mount -t proc proc {root}/proc
mount -t sysfs none {root}/sys
mount -t cgroup2 none {root}/sys/fs/cgroup
for folder in run tmp dev; do mount -t tmpfs none {root}/$folder; done
for device in null zero full random urandom tty; do
    touch {root}/dev/$device
    mount --bind /dev/$device {root}/dev/$device
done
mkdir {root}/dev/pts {root}/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 none {root}/dev/pts
ln -s pts/ptmx {root}/dev/ptmx
mount --bind {shared} {root}/mnt
ip link set lo up
# Nothing of this machine starts there.
rm -rf {root}/etc/systemd/system/*.wants {root}/etc/nginx/sites-enabled/*
echo {identity} > {root}/etc/machine-id
mkdir {root}/old
cd {root}
pivot_root . old
umount --lazy /old
exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \\
    --log-target=console --show-status=0 --unit=basic.target
"""


@dataclass(frozen=True)
class Host:
    process: int
    log: Path

    def run(self, script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script as root in a new shell, which stops at the first error."""
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        enter = [find("nsenter"), "--target", str(self.process), *namespaces]
        return subprocess.run(
            [*enter, "bash", "-euo", "pipefail", "-c", f"cd /root\n{script}"],
            env={
                "HOME": "/root",
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def succeed(self, script: str, stdin: str = "") -> str:
        run = self.run(script, stdin)
        assert run.returncode == 0, f"{script}\n{run.stdout}{run.stderr}"
        return run.stdout


def obstacle() -> str:
    """What keeps this machine from booting a host, as in many containers; empty if nothing does."""
    cgroup = _cgroup2()
    if not cgroup or not os.access(cgroup, os.W_OK):
        return "this machine has no cgroup2 that can be written"
    with tempfile.TemporaryDirectory() as folder:
        script = (
            f"mount -t tmpfs none {folder} && mkdir {folder}/upper {folder}/work {folder}/merged && "
            f"mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,"
            f"workdir={folder}/work {folder}/merged && touch {folder}/merged/new"
        )
        command = [find("unshare"), "--mount", "--pid", "--net", "--cgroup", "--fork"]
        tried = subprocess.run(
            [*command, "sh", "-c", script], capture_output=True, text=True, check=False
        )
    return f"this machine can't mount an overlay: {tried.stderr.strip()}" * bool(tried.returncode)


@contextmanager
def booted_host(shared: Path) -> Iterator[Host]:
    """The host, once its systemd accepts commands. It has the shared folder at /mnt."""
    cgroup = Path(_cgroup2(), f"tests-{os.getpid()}")
    cgroup.mkdir()
    with tempfile.TemporaryDirectory(prefix="host-") as name:
        base, log = Path(name, "base"), Path(name, "log")
        base.mkdir()
        places = {"base": base, "root": base / "root", "shared": shared}
        script = BOOT.format(**places, identity=os.urandom(16).hex())
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork"]
        join = f'echo $$ > {cgroup}/cgroup.procs && exec "$@"'
        command = ["sh", "-c", join, "-", find("unshare"), *namespaces, "--kill-child=SIGKILL"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: bool(_children(process.pid)) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            host = Host(_children(process.pid)[0], log)
            wait_until(lambda: _is_running(host) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield host
        finally:
            process.kill()
            process.wait(timeout=30)
            _remove(cgroup)


def _cgroup2() -> str:
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    return next((mount[1] for mount in mounts if mount[2] == "cgroup2"), "")


def _children(process: int) -> list[int]:
    file = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in file.read_text().split()] if file.exists() else []


def _is_running(host: Host) -> bool:
    return host.run("systemctl is-system-running").stdout.strip() in {"running", "degraded"}


def _remove(cgroup: Path) -> None:
    """A cgroup goes from the leaves, once its last process has gone."""
    deadline = time.monotonic() + 30
    while cgroup.exists() and time.monotonic() < deadline:
        for folder in sorted(cgroup.rglob("*/"), reverse=True):
            if folder.is_dir():
                _try_to_remove(folder)
        _try_to_remove(cgroup)
        time.sleep(0.1)


def _try_to_remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
