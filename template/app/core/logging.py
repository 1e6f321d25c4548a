"""Log lines: readable in development, one JSON object per line in production."""

import getpass
import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from app.core.settings import CoreSettings

# Every log line of a request carries these.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
client_address: ContextVar[str | None] = ContextVar("address", default=None)
user_id: ContextVar[int | None] = ContextVar("user_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
# Those of a command carry these: which one, and who ran it.
command: ContextVar[str | None] = ContextVar("command", default=None)
os_user: ContextVar[str | None] = ContextVar("os_user", default=None)

_OF_CONTEXT: tuple[ContextVar[Any], ...]
_OF_CONTEXT = (request_id, client_address, user_id, trace_id, command, os_user)

_MAX_PATH_LENGTH = 500
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}


def quote_path(path: str) -> str:
    """A path for a log line or a response: percent-encoded, and cut to a bounded length."""
    return quote(path[:_MAX_PATH_LENGTH], errors="replace")


def _extra_fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of the request or command, and those that the call passed as `extra`."""
    of_context = {field.name: field.get() for field in _OF_CONTEXT}
    known = {name: value for name, value in of_context.items() if value is not None}
    given = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
    return {**known, **given}


class TextFormatter(logging.Formatter):
    default_time_format = "%H:%M:%S"
    default_msec_format = None

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        fields = " ".join(f"{key}={value}" for key, value in _extra_fields(record).items())
        return f"{super().formatMessage(record)} {fields}".rstrip()


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # JSON escapes line breaks, so input cannot forge a second line.
        return json.dumps(line, default=str)


def _has_no_query(record: logging.LogRecord) -> bool:
    """False for uvicorn's line about a WebSocket, whose query may have a token."""
    return not str(record.msg).startswith('%s - "WebSocket ')


def _hide_query(record: logging.LogRecord) -> bool:
    """Cut the query from a line of uvicorn's own access log: the token of a link may be in it."""
    if isinstance(record.args, tuple):
        cut = (a.partition("?")[0] if isinstance(a, str) else a for a in record.args)
        record.args = tuple(cut)
    return True


def configure_logging(settings: CoreSettings) -> None:
    """Give the root logger a handler, and send uvicorn's lines through it.

    A root logger that already has a handler (pytest, uvicorn's --log-config) stays as it is.
    """
    logging.getLogger("app").setLevel(settings.log_level)
    logging.getLogger("uvicorn.error").addFilter(_has_no_query)
    logging.getLogger("uvicorn.access").addFilter(_hide_query)
    # Alembic lists its plugins when it is imported, which is at the first check of readiness.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    if logging.getLogger().hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if settings.in_development else JsonFormatter())
    # Libraries stay at INFO: at DEBUG the database driver logs every value, password hashes too.
    level = max(logging.INFO, logging.getLevelNamesMapping()[settings.log_level])
    logging.basicConfig(level=level, handlers=[handler])
    # RequestMiddleware writes the access log, which has the request id.
    for name, propagate in (("uvicorn", True), ("uvicorn.access", False)):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = propagate


def log_command(settings: CoreSettings, name: str) -> None:
    """Log to standard error what a command changes, with its name and the user who runs it."""
    configure_logging(settings)
    command.set(name)
    try:
        os_user.set(getpass.getuser())
    except (ImportError, KeyError, OSError):
        # There is no such user, or none that has a name.
        os_user.set("unknown")
