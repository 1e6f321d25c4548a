"""Log lines: one readable line in development, one JSON object in production."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from urllib.parse import quote

from app.settings import Settings

# What every line says of the request that it belongs to.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
address: ContextVar[str | None] = ContextVar("address", default=None)
user_id: ContextVar[int | None] = ContextVar("user_id", default=None)

LONGEST_PATH = 500

STANDARD_FIELDS = logging.makeLogRecord({}).__dict__.keys() | {
    "message",
    "asctime",
    "color_message",
}


def quoted(path: str) -> str:
    """A path as a log line or an answer shows it: cut, since its length is the visitor's choice."""
    return quote(path[:LONGEST_PATH], errors="replace")


def extra_fields(record: logging.LogRecord) -> dict[str, object]:
    """What a call gave as `extra=`, with the request it belongs to."""
    of_request = {field.name: field.get() for field in (request_id, address, user_id)}
    known = {name: value for name, value in of_request.items() if value is not None}
    given = {key: value for key, value in vars(record).items() if key not in STANDARD_FIELDS}
    return {**known, **given}


class ReadableFormatter(logging.Formatter):
    default_time_format = "%H:%M:%S"
    default_msec_format = None

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        fields = " ".join(f"{key}={value}" for key, value in extra_fields(record).items())
        return f"{super().formatMessage(record)} {fields}".rstrip()


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **extra_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # json escapes line breaks, so no input can forge a second line.
        return json.dumps(line, default=str)


def configure_logging(settings: Settings) -> None:
    """Give the root logger a handler, and send uvicorn's lines through it.

    Whoever gave it one before (pytest, a --log-config with a root logger) keeps the last word.
    """
    logging.getLogger("app").setLevel(settings.log_level)
    if logging.getLogger().hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(ReadableFormatter() if settings.in_development else JsonFormatter())
    # Libraries stay at INFO: at DEBUG the database driver logs every value, hashes among them.
    level = max(logging.INFO, logging.getLevelNamesMapping()[settings.log_level])
    logging.basicConfig(level=level, handlers=[handler])
    # RequestMiddleware writes the access log, with the request id.
    for name, is_passed_on in (("uvicorn", True), ("uvicorn.access", False)):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = is_passed_on
