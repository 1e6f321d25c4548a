"""How `serve` speaks HTTP: uvicorn's protocol, with our error responses and a limit for headers."""

import asyncio
import contextlib
from typing import Any

import h11
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from app.core.errors import problem
from app.core.middleware import SECURITY_HEADERS

# How long a client may take for the headers, from the connection or from the last response.
HEADER_SECONDS = 30.0


def serve_with(config: uvicorn.Config) -> int:
    """Serve until a signal; the exit code. uvicorn itself exits with 0 if its workers cannot start."""
    if config.workers == 1:
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
        return 0 if server.started else STARTUP_FAILURE
    workers = Multiprocess(config, sockets=[config.bind_socket()])
    workers.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in workers.processes)
    return STARTUP_FAILURE if failed else 0


class Protocol(H11Protocol):
    """Answers invalid HTTP with problem details, and closes connections without a request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._limit_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._limit_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._limit_headers()

    def _limit_headers(self) -> None:
        """Run the clock while this connection has no request and is not closed."""
        has_request = self.cycle is not None and not self.cycle.response_complete
        is_ours = self.transport.get_protocol() is self and not self.transport.is_closing()
        if is_ours and not has_request:
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. It reaches no route and no middleware."""
        response = problem("/", 400, msg, headers={**SECURITY_HEADERS, "Connection": "close"})
        events: list[h11.Event] = [
            h11.Response(status_code=400, headers=response.raw_headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
