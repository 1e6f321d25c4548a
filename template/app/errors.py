"""The errors of this app, and how each of them is answered: as problem details (RFC 9457)."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.db.faults import is_conflict, is_outage
from app.logs import request_id

logger = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
# As in RFC 9110; the standard library has them since Python 3.13.
NEWER_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}


class AppError(Exception):
    """An answer other than success: subclass it with a status and a sentence for the person."""

    status_code = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "Something went wrong on our side."
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class NotFound(AppError):
    status_code = HTTPStatus.NOT_FOUND
    detail = "There is nothing here."


class Conflict(AppError):
    status_code = HTTPStatus.CONFLICT
    detail = "This clashes with what is already there."


class ServiceUnavailable(AppError):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "The service can't answer just now. Try again in a moment."
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "5"}


def problem(
    path: str,
    status: int,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, object]] | None = None,
) -> Response:
    """A problem-details response; its title is the phrase of the HTTP status."""
    title = NEWER_PHRASES.get(status) or HTTPStatus(status).phrase
    body: dict[str, object] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail or title,
        "instance": quote(path, errors="replace"),
        "request_id": request_id.get(),
    }
    if errors is not None:
        body["errors"] = errors
    # ASCII, because a lone surrogate has no UTF-8.
    return Response(json.dumps(body), status, headers, media_type=PROBLEM)


async def answer_app_error(request: Request, error: AppError) -> Response:
    return problem(request.url.path, error.status_code, error.detail, headers=error.headers)


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := allowed_methods(request)):
        headers["Allow"] = ", ".join(allowed)
    return problem(request.url.path, error.status_code, error.detail, headers=headers)


def allowed_methods(request: Request) -> list[str]:
    """Every method that this path has a route for; the framework names those of the first alone."""
    scope = {key: request.scope[key] for key in ("type", "path", "headers")}
    # Below a mount, root_path is the mount's.
    scope["root_path"] = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    allowed = [
        method
        for method in ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
    return sorted([*allowed, "HEAD"]) if "GET" in allowed else allowed


async def answer_invalid_request(request: Request, error: RequestValidationError) -> Response:
    """Name the place and the reason, never the input: it may be a password."""
    errors = [
        {"loc": place(fault), "msg": reason(fault), "type": fault["type"]}
        for fault in error.errors()
    ]
    detail = "The request does not fit; see errors."
    return problem(request.url.path, 422, detail, errors=errors)


def place(fault: Mapping[str, Any]) -> list[str]:
    """Where the fault is; a name that the visitor chose is left out."""
    parts = fault["loc"][:-1] if fault["type"] == "extra_forbidden" else fault["loc"]
    return [
        str(part)
        for part in parts
        if (len(str(part)) <= 64 and str(part).isidentifier()) or isinstance(part, int)
    ]


def reason(fault: Mapping[str, Any]) -> str:
    # The one message of Pydantic's that quotes what came in.
    return "Unknown kind" if fault["type"] == "union_tag_invalid" else str(fault["msg"])


async def answer_database_error(request: Request, error: DBAPIError | PoolTimeout) -> Response:
    if isinstance(error, DBAPIError):
        if is_conflict(error):
            return await answer_app_error(request, Conflict())
        if not is_outage(error, only_reads=request.method == "GET"):
            raise error
    logger.error("The database is unavailable: %s", getattr(error, "orig", None) or error)
    return await answer_app_error(request, ServiceUnavailable())


def add_error_handlers(app: FastAPI) -> None:
    app.exception_handler(AppError)(answer_app_error)
    app.exception_handler(HTTPException)(answer_http_exception)
    app.exception_handler(RequestValidationError)(answer_invalid_request)
    app.exception_handler(DBAPIError)(answer_database_error)
    app.exception_handler(PoolTimeout)(answer_database_error)
