"""nginx and Caddy with the files of a project's `deploy/`, on free ports, and a client of them."""

import os
import re
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType

from tests.support.clusters import find, is_listening, running_process, wait_until
from tests.support.servers import Answer, free_port

NAME = "api.example.com"
NGINX = """
user {user};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/responses;
    include {site};
}}
"""
CADDY = """
{{
	admin off
	http_port {http}
	https_port {https}
	auto_https disable_redirects
}}
"""
CERTIFICATE = [
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    f"/CN={NAME}",
]
CERTIFICATE += ["-addext", f"subjectAltName=DNS:{NAME}"]


@dataclass(frozen=True)
class Proxy:
    plain: int
    tls: int
    certificate: Path

    @contextmanager
    def connect(self, source: str = "127.0.0.1") -> Iterator[HTTPConnection]:
        """A connection with TLS, whose certificate is checked."""
        context = ssl.create_default_context(cafile=self.certificate)
        bare = socket.create_connection(("127.0.0.1", self.tls), 30, (source, 0))
        connection = HTTPConnection(NAME)
        connection.sock = context.wrap_socket(bare, server_hostname=NAME)
        try:
            yield connection
        finally:
            connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        source: str = "127.0.0.1",
    ) -> Answer:
        with self.connect(source) as connection:
            connection.request(
                method, path, body, dict(headers), encode_chunked=isinstance(body, Iterator)
            )
            return read(connection)

    def get_plain(self, path: str) -> Answer:
        """Without TLS and by address, as a load balancer does."""
        connection = HTTPConnection("127.0.0.1", self.plain, timeout=30)
        try:
            connection.request("GET", path)
            return read(connection)
        finally:
            connection.close()


def read(connection: HTTPConnection) -> Answer:
    response = connection.getresponse()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


@contextmanager
def nginx(site: str, app: int) -> Iterator[Proxy]:
    """nginx with this site, once `nginx -t` has accepted it."""
    with _prepare() as (folder, proxy):
        changed = site.replace("127.0.0.1:8001", f"127.0.0.1:{app}")
        changed = re.sub(r" *listen \[::\]:.*\n", "", changed)
        changed = re.sub(r"listen 80\b", f"listen 127.0.0.1:{proxy.plain}", changed)
        changed = re.sub(r"listen 443\b", f"listen 127.0.0.1:{proxy.tls}", changed)
        changed = re.sub(r"/etc/letsencrypt/live/[\w.]+", str(folder), changed)
        (folder / "site").write_text(changed)
        user = "root" if os.getuid() == 0 else "nobody"
        file = folder / "nginx.conf"
        file.write_text(NGINX.format(folder=folder, site=folder / "site", user=user))
        command = [find("nginx"), "-c", str(file), "-e", str(folder / "error.log")]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        assert "warn" not in tested.stderr
        with running_process(command):
            wait_until(lambda: is_listening(proxy.tls))
            yield proxy


@contextmanager
def caddy(site: str, app: int) -> Iterator[Proxy]:
    """Caddy with this site, once `caddy validate` has accepted it, with a certificate of ours."""
    with _prepare() as (folder, proxy):
        changed = site.replace("127.0.0.1:8001", f"127.0.0.1:{app}")
        own = f"{NAME} {{\n\ttls {folder}/fullchain.pem {folder}/privkey.pem\n"
        changed = changed.replace(f"\n{NAME} {{\n", f"\n{own}")
        file = folder / "Caddyfile"
        file.write_text(CADDY.format(http=proxy.plain, https=proxy.tls) + changed)
        command = [find("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
        check = [find("caddy"), "validate", *command[2:]]
        tested = subprocess.run(check, capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        with running_process(command):
            wait_until(lambda: is_listening(proxy.tls))
            yield proxy


@contextmanager
def _prepare() -> Iterator[tuple[Path, Proxy]]:
    """A folder with a certificate, and free ports."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as name:
        folder = Path(name)
        certificate = make_certificate(folder)
        yield certificate, Proxy(free_port(), free_port(), certificate / "fullchain.pem")


def make_certificate(folder: Path) -> Path:
    """A new folder with a self-signed certificate, under certbot's names."""
    certificate = folder / "certificate"
    certificate.mkdir()
    files = ["-keyout", "privkey.pem", "-out", "fullchain.pem"]
    command = [find("openssl"), *CERTIFICATE, *files]
    subprocess.run(command, cwd=certificate, capture_output=True, check=True)
    return certificate
