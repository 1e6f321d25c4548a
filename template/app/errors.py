"""The errors of this app, and how each of them is answered: as problem details (RFC 9457)."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.db.faults import is_conflict, is_outage
from app.logs import quoted, request_id
from app.request_faults import allowed_methods, describe_faults, has_wrong_content_type

logger = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
# As in RFC 9110; the standard library has them since Python 3.13.
NEWER_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}


class Fault(NamedTuple):
    """One fault of a 422: where it is, a sentence, and a word for programs."""

    loc: Sequence[str]
    msg: str
    type: str


class AppError(Exception):
    """An answer other than success: subclass it with a status and a sentence for the person.

    With an `event` it is logged under that name, for whoever looks for attacks.
    """

    status_code = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "Something went wrong on our side."
    headers: Mapping[str, str] = MappingProxyType({})
    errors: Sequence[Fault] | None = None
    event: str | None = None

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class Invalid(AppError):
    """What a schema can't know: `Invalid([Fault(["body", "title"], "...", "title_taken")])`."""

    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "The request does not fit; see errors."

    def __init__(self, errors: Sequence[Fault]) -> None:
        super().__init__()
        # No more, or an answer could be many times its request.
        self.errors = errors[:50]


class NotFound(AppError):
    status_code = HTTPStatus.NOT_FOUND
    detail = "There is nothing here."


class UnsupportedMediaType(AppError):
    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    detail = "Send the content type that the schema names."


class Conflict(AppError):
    status_code = HTTPStatus.CONFLICT
    detail = "This clashes with what is already there."


class ServiceUnavailable(AppError):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "The service can't answer just now. Try again in a moment."
    headers = MappingProxyType({"Retry-After": "5"})


def problem(
    path: str,
    status: int,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Fault] | None = None,
) -> Response:
    """A problem-details response; its title is the phrase of the HTTP status."""
    title = NEWER_PHRASES.get(status) or HTTPStatus(status).phrase
    body: dict[str, object] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail or title,
        "instance": quoted(path),
        "request_id": request_id.get(),
    }
    if errors is not None:
        body["errors"] = [fault._asdict() for fault in errors]
    # ASCII, because a lone surrogate has no UTF-8.
    return Response(json.dumps(body), status, headers, media_type=PROBLEM)


async def answer_app_error(request: Request, error: AppError) -> Response:
    if error.event:
        logger.warning(error.detail, extra={"event": error.event})
    return problem(
        request.url.path,
        error.status_code,
        error.detail,
        headers=error.headers,
        errors=error.errors,
    )


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := allowed_methods(request)):
        headers["Allow"] = ", ".join(allowed)
    return problem(request.url.path, error.status_code, error.detail, headers=headers)


async def answer_invalid_request(request: Request, error: RequestValidationError) -> Response:
    if has_wrong_content_type(request):
        return await answer_app_error(request, UnsupportedMediaType())
    faults = [Fault(*fault) for fault in describe_faults(error.errors())]
    return await answer_app_error(request, Invalid(faults))


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
