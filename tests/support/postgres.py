"""A PostgreSQL server of this machine's own package, for as long as a test needs it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.machines import quick_folder
from tests.support.servers import free_port


def program(name: str) -> str:
    """Debian keeps each version's programs out of PATH."""
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(packaged[-1]) if packaged else shutil.which(name)
    if not found:
        raise FileNotFoundError(f"{name} was not found: install PostgreSQL (.ci/run does)")
    return found


class Postgres:
    """A cluster in a folder, with its own port; started and stopped by its own user."""

    def __init__(self, folder: Path, *, copy_of: "Postgres | None" = None) -> None:
        self.data = folder / "data"
        self.port = free_port()
        # The server refuses to run as root.
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.as_user:
            shutil.chown(folder, "postgres")
        if copy_of is None:
            self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", self.data)
        else:
            # -R writes the settings of a standby.
            copy = ("--no-sync", "--checkpoint=fast", "-R", "-D", self.data)
            self._run("pg_basebackup", "-d", copy_of.url(), *copy)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.data} -c max_connections=300"
        # No test cuts the power, and each creates and drops databases.
        options += " -c fsync=off"
        self._run("pg_ctl", "-w", "-D", self.data, "-l", self.data / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop without warning. Nothing happens if it is stopped already."""
        if not (self.data / "postmaster.pid").exists():
            return
        self._run("pg_ctl", "-w", "-m", "immediate", "-D", self.data, "stop")

    def promote(self) -> None:
        """Make a primary of this standby."""
        self._run("pg_ctl", "-w", "-D", self.data, "promote")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop every process of the server, which keeps its connections open."""
        main = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        processes = [main, *map(int, children)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def restart(self) -> float:
        """Stop without warning, start again; seconds without a server."""
        started = time.monotonic()
        self.stop()
        self.start()
        return time.monotonic() - started

    def _run(self, name: str, *arguments: str | Path) -> None:
        command = [*self.as_user, program(name), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr}")


@contextmanager
def running() -> Iterator[Postgres]:
    # Not pytest's folder, into which the server's user may not look.
    with tempfile.TemporaryDirectory(
        prefix="postgres-", dir=quick_folder(), ignore_cleanup_errors=True
    ) as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
