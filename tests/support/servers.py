"""A real server of a generated project, on a free port of this machine."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.support.machines import Machine


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A uvicorn command, run until the end of the `with` block and then asked to stop."""

    starts_within = 30.0

    def __init__(
        self, machine: Machine, command: Sequence[str | Path], project: Path, **environment: str
    ) -> None:
        self.port = int(environment.pop("PORT", 0)) or free_port()
        self.process: subprocess.Popen[str] = machine.popen(
            *command, "--port", str(self.port), cwd=project, environment=environment
        )
        # Read continuously: a server blocks when its output pipe is full.
        self.lines: list[str] = []
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self) -> None:
        assert self.process.stdout
        with self.process.stdout as said:
            self.lines.extend(said)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self.starts_within
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/health/live")
            except OSError:
                time.sleep(0.05)
            else:
                return self
        self.stop(signal.SIGKILL)
        raise AssertionError(f"the server did not start:\n{self.output}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(signal.SIGTERM)

    def stop(self, how: signal.Signals) -> int:
        """Send a signal to the server; its exit code, and in `output` all that it said."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        self.process.wait(timeout=30)
        self.listener.join(timeout=30)
        return self.process.returncode

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return self.send(method, path, None, headers)

    def post(
        self, path: str, body: object, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Answer:
        """Send JSON."""
        kind = {"Content-Type": "application/json"}
        return self.send("POST", path, json.dumps(body).encode(), {**kind, **headers})

    def log_in(
        self, username: str, password: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Answer:
        form = urlencode({"username": username, "password": password}).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", "/api/v1/auth/login", form, {**kind, **headers})

    def send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """The first bytes that come back for these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            return connection.recv(65536)
