"""How `serve` listens, stops and speaks HTTP: uvicorn, with our errors and a limit for headers."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from app.core.clients import SEND_SECONDS
from app.core.errors import problem
from app.core.event_loop import choose_loop
from app.core.middleware import SECURITY_HEADERS
from app.core.settings import CoreSettings

logger = logging.getLogger(__name__)

# How long a client may take for the headers, from the connection or from their first byte.
HEADER_SECONDS = 30.0
# The owner and the group may connect: put the user of the proxy into the group.
_SOCKET_MODE = 0o660


class ListenError(Exception):
    """Why the server cannot listen there, and what to do, as a sentence."""


def serve_app(
    app: str, settings: CoreSettings, listens_at: Path | tuple[str, int], **options: Any
) -> int:
    """Serve until a signal; the exit code, which uvicorn's workers lack."""
    config = uvicorn.Config(
        app,
        http="app.core.server:Protocol",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        # A worker needs longer than 5 seconds to start on a busy machine, and would be killed.
        timeout_worker_healthcheck=30,
        ws_max_size=settings.max_body_bytes,
        # Otherwise, one packet could hold hundreds of messages of that size.
        ws_per_message_deflate=False,
        loop=choose_loop(settings, options["workers"]),
        **options,
    )
    # After it has stopped, uvicorn raises this signal again. By default, that would end the
    # process before the path is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    opened = _at_path(listens_at) if isinstance(listens_at, Path) else _at_port(*listens_at)
    with opened as listener:
        logger.info("Listening on %s", _name_of(listener))
        if config.workers == 1:
            server = uvicorn.Server(config)
            with contextlib.suppress(KeyboardInterrupt):
                server.run([listener])
            return 0 if server.started else STARTUP_FAILURE
        workers = _Workers(config, [listener])
        workers.run()
        failed = any(process.exitcode == STARTUP_FAILURE for process in workers.processes)
        return STARTUP_FAILURE if failed else 0


class _Workers(Multiprocess):
    def terminate_all(self) -> None:
        # Otherwise, connections would wait for workers that accept no more.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def restart_all(self) -> None:
        before = {process.pid for process in self.processes}
        super().restart_all()
        new = len({process.pid for process in self.processes} - before)
        logger.info("Reload finished: %d of %d workers are new", new, len(self.processes))


def _name_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return name
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _at_port(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # `localhost` is IPv4, as with uvicorn.
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, dualstack_ipv6=is_dual)
    except (socket.gaierror, UnicodeError):
        reason = f"unknown host {host}: use an address of this machine, such as 127.0.0.1"
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port {port} is in use: stop the other server, or use another port",
            errno.EACCES: f"port {port} is reserved: use one above 1023, and a proxy in front",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine: use 127.0.0.1",
        }
        other = f"cannot listen on {host}, port {port}: {error.strerror}"
        reason = reasons.get(error.errno or 0, other)
    raise ListenError(reason)


@contextlib.contextmanager
def _at_path(path: Path) -> Iterator[socket.socket]:
    """A Unix socket, which is removed at the end unless another server has replaced it."""
    if os.name == "nt":
        raise ListenError("--socket does not exist on Windows: use --host and --port")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _remove_stale_socket(path)
            listener.bind(str(path))
            path.chmod(_SOCKET_MODE)
            listener.listen()
        except OSError as error:
            raise ListenError(
                f"cannot listen on {path} ({error.strerror or error}): use a path of at most 100 "
                "bytes, in a folder that exists and that you can write to"
            ) from None
        ours = path.stat()
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                now = path.stat()
                # A new file can get the inode of a removed one, but not its time.
                if (now.st_ino, now.st_mtime_ns) == (ours.st_ino, ours.st_mtime_ns):
                    path.unlink()


def _remove_stale_socket(path: Path) -> None:
    """Remove what a server left behind that was killed. Nothing listens there."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise ListenError(f"{path} is not a socket: remove it, or use another path")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise ListenError(f"{path} is in use: stop the other server, or use another path")


class Protocol(H11Protocol):
    """Answers invalid HTTP with problem details, and closes connections without a request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        _send_at_once(transport.get_extra_info("socket"))
        self._limit_headers()

    def data_received(self, data: bytes) -> None:
        is_answered = self.conn.our_state is h11.DONE
        super().data_received(data)
        if is_answered and self.conn.our_state is h11.IDLE:
            # A late body has ended. uvicorn starts its clock for idle clients only after a response.
            self._stop_clock()
            if not self.conn.trailing_data[0]:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
                return
        self._limit_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # A part of the next request may be there already, or the rest of this one may not.
        if self.conn.trailing_data[0] or self.conn.their_state is h11.SEND_BODY:
            self._limit_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._limit_headers()

    def _limit_headers(self) -> None:
        """Run the clock while this connection has no request, and is neither idle nor closed."""
        has_request = self.cycle is not None and not self.cycle.response_complete
        is_ours = self.transport.get_protocol() is self and not self.transport.is_closing()
        if is_ours and not has_request:
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)
        else:
            self._stop_clock()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        super().handle_websocket_upgrade(event)
        protocol: Any = self.transport.get_protocol()
        shut_down = protocol.shutdown

        def shut_down_or_abort() -> None:
            """uvicorn would fail if it is closing already, and end all requests with an error."""
            if self.transport.is_closing():
                self.transport.abort()
            else:
                shut_down()

        protocol.shutdown = shut_down_or_abort
        if not getattr(protocol, "handshake_initiated", True):
            # The library has rejected it, but uvicorn would keep the connection, without an answer.
            self.send_400_response("Invalid WebSocket handshake.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. It reaches no route and no middleware."""
        if self.cycle is not None:
            # Otherwise the app could add its response, until the client has read what is sent here.
            self.cycle.disconnected = True
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return self.transport.close()
        response = problem("/", 400, msg, headers={**SECURITY_HEADERS, "Connection": "close"})
        events: list[h11.Event] = [
            h11.Response(status_code=400, headers=response.raw_headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()


def _send_at_once(connection: socket.socket) -> None:
    """Let no response wait until the client has acknowledged its headers (40 ms on Linux).

    asyncio does so only if the socket that listens was created with a protocol number.
    """
    # macOS raises an error if the client is gone already.
    with contextlib.suppress(OSError):
        if connection.family != getattr(socket, "AF_UNIX", None):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Linux only. Otherwise, what a client does not read would keep its connection open.
            if option := getattr(socket, "TCP_USER_TIMEOUT", None):
                connection.setsockopt(socket.IPPROTO_TCP, option, int(SEND_SECONDS * 1000))
