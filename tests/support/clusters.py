"""What stands around PostgreSQL on several machines: a pooler, a standby, a load balancer."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.postgres import Postgres
from tests.support.servers import free_port

POOLER = """
[databases]
* = host=127.0.0.1 port={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 1000
logfile = {folder}/log
pidfile = {folder}/pid
"""

BALANCER = """
defaults
    mode http
    timeout connect 2s
    timeout check 5s
    timeout client 60s
    timeout server 60s

frontend web
    bind 127.0.0.1:{port}
    option forwardfor
    default_backend app

backend app
    balance roundrobin
    option httpchk
    http-check send meth GET uri /health/ready hdr Host localhost
    default-server check inter 500ms fall 2 rise 1
{servers}
"""


def find(name: str) -> str:
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if not found:
        raise FileNotFoundError(f"{name} was not found: install it (.ci/run does)")
    return found


@contextmanager
def pooler(server: Postgres, pool_size: int = 4) -> Iterator[Callable[[str], str]]:
    """PgBouncer in transaction mode; yields the URL of a database through it."""
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, port = Path(name), free_port()
        values = {"server": server.port, "port": port, "folder": folder, "pool_size": pool_size}
        (folder / "users.txt").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(POOLER.format(**values))
        if server.as_user:
            shutil.chown(folder, "postgres")
        command = [find("pgbouncer"), "-q", str(folder / "pgbouncer.ini")]
        with running_process(command, user="postgres" if server.as_user else None):
            wait_until(lambda: accepts(f"postgresql://postgres@127.0.0.1:{port}/postgres"))
            yield lambda database: f"postgresql://postgres@127.0.0.1:{port}/{database}"


@contextmanager
def standby(primary: Postgres) -> Iterator[Postgres]:
    """A streaming standby, which has everything that the primary has had up to now."""
    with tempfile.TemporaryDirectory(prefix="standby-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder), copy_of=primary)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def balancer(ports: Sequence[int]) -> Iterator[int]:
    """HAProxy in front of these servers of the app; yields its port."""
    with tempfile.TemporaryDirectory(prefix="haproxy-") as folder:
        port = free_port()
        servers = "\n".join(f"    server app{n} 127.0.0.1:{p}" for n, p in enumerate(ports))
        file = Path(folder) / "haproxy.cfg"
        file.write_text(BALANCER.format(port=port, servers=servers))
        with running_process([find("haproxy"), "-q", "-db", "-f", str(file)]):
            wait_until(lambda: is_listening(port))
            yield port


@contextmanager
def running_process(command: Sequence[str], user: str | None = None) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd="/", user=user, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def wait_until(is_true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
