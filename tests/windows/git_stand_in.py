"""git.exe for Wine: no package index has Git for Windows.

A real .exe passes the arguments, the environment and the input that it gets to Linux's git over a
socket. So what Copier, the hooks and create_project.py do with git is tested as on Windows. Git
itself is not: on Windows it would convert line endings and ignore the executable bit.
"""

import marshal
import os
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.wine import Wine

# An update calls git about 300 times and imports are slow under Wine, so this uses built-in modules
# only. Every Python reads version 2 of marshal.
IN_WINDOWS = """
import _socket, marshal, os, sys
names = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
given = sys.stdin.buffer.read() if sys.stdin else b""
request = marshal.dumps((sys.argv[1:], os.getcwd(), names, given), 2)
connection = _socket.socket()
connection.connect(("127.0.0.1", int(names["GIT_STAND_IN"])))
connection.sendall(len(request).to_bytes(8, "big") + request)
answer = b"".join(iter(lambda: connection.recv(65536), b""))
code, output, errors = marshal.loads(answer)
sys.stdout.buffer.write(output)
sys.stderr.buffer.write(errors)
sys.exit(code)
"""
WINDOWS_PATH = re.compile(r"(?<![A-Za-z])([A-Za-z]):([\\/][^\"\n]*)")


@contextmanager
def git_for(wine: Wine, folder: Path) -> Iterator[dict[str, str]]:
    """Put git.exe into a folder and yield the environment variables that it needs."""
    wine.stand_in(folder / "git.exe", IN_WINDOWS)

    class Request(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = int.from_bytes(self.rfile.read(8), "big")
            arguments, place, names, given = marshal.loads(self.rfile.read(size))
            run = run_git(wine, arguments, place, names, given)
            # `rev-parse --show-toplevel`: git for Windows prints a drive.
            output = re.sub(rb"^/", b"Z:/", run.stdout) if "rev-parse" in arguments else run.stdout
            self.wfile.write(marshal.dumps((run.returncode, output, run.stderr), 2))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Request) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {"GIT_STAND_IN": str(server.server_address[1])}
        finally:
            server.shutdown()


def run_git(
    wine: Wine, arguments: list[str], place: str, names: dict[str, str], given: bytes
) -> subprocess.CompletedProcess[bytes]:
    def on_linux(text: str) -> str:
        return WINDOWS_PATH.sub(
            lambda path: f"{wine.drive(path[1])}{path[2]}".replace("\\", "/"), text
        )

    folder = Path(on_linux(place))
    # Copier writes this file itself, so that a clone can use the objects of the project.
    alternates = folder / ".git/objects/info/alternates"
    if alternates.is_file():
        alternates.write_text(on_linux(alternates.read_text()))
    return subprocess.run(
        ["git", *map(on_linux, arguments)],
        cwd=folder,
        env={**os.environ, **{name: on_linux(value) for name, value in names.items()}},
        input=given,
        capture_output=True,
        check=False,
    )
