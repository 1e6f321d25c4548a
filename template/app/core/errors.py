"""Errors and their responses: problem details (RFC 9457), wherever a request goes wrong."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import responses as phrases
from types import MappingProxyType
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import RouteContext, iter_route_contexts
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Host, Match, Mount
from starlette.types import Scope

from app.core.database import READ_METHODS, is_integrity_error, is_transient_error
from app.core.logging import quote_path, request_id

logger = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
# As in RFC 9110. The standard library has them since Python 3.13.
_NEW_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
_STATUSES_WITHOUT_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
# A response with more could be many times as long as its request.
_MAX_FIELD_ERRORS = 50
# Type of an error → what Pydantic calls the limit, and the sentence for a text.
_LENGTHS = {
    "too_short": ("min_length", "Use at least {} character(s)."),
    "too_long": ("max_length", "Use at most {} characters."),
}
# What a route reads of a request to tell whether it accepts it.
_ROUTING_KEYS = ("type", "path", "root_path", "headers")
_FORM_TYPES = {"application/x-www-form-urlencoded", "multipart/form-data"}


class FieldError(NamedTuple):
    """One entry of a 422: the location, a sentence for people, and a word for programs."""

    loc: Sequence[str]
    msg: str
    type: str


class AppError(Exception):
    """The base of every error response: a subclass sets the status and a sentence.

    An error with an `event` is logged under that name, for those who watch for attacks.
    """

    status_code = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "Something went wrong on our side."
    headers: Mapping[str, str] = MappingProxyType({})
    errors: Sequence[FieldError] | None = None
    event: str | None = None

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class Invalid(AppError):
    """For rules beyond a schema: `Invalid([FieldError(["body", "title"], "...", "taken")])`."""

    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = "The request is invalid; see `errors`."

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__()
        self.errors = errors[:_MAX_FIELD_ERRORS]


class Unauthenticated(AppError):
    status_code = HTTPStatus.UNAUTHORIZED
    detail = "Log in first."
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class PermissionDenied(AppError):
    status_code = HTTPStatus.FORBIDDEN
    detail = "You are not allowed to do this."
    event = "denied"


class NotFound(AppError):
    status_code = HTTPStatus.NOT_FOUND
    detail = "Not found."


class Conflict(AppError):
    status_code = HTTPStatus.CONFLICT
    detail = "This conflicts with an existing resource."


class ContentTooLarge(AppError):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    detail = "The request body is too large."


class UnsupportedMediaType(AppError):
    status_code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    detail = "The request body has an unsupported content type."


class ServiceUnavailable(AppError):
    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    detail = "The service is temporarily unavailable. Try again in a moment."
    headers = MappingProxyType({"Retry-After": "5"})


def problem(
    path: str,
    status: int,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldError] | None = None,
) -> Response:
    """A problem-details response, whose title is the phrase of the HTTP status."""
    if status in _STATUSES_WITHOUT_BODY:
        return Response(status_code=status, headers=headers)
    # A status that is in no standard, such as 499, has no phrase.
    title = _NEW_PHRASES.get(status) or phrases.get(status, "Error")
    body: dict[str, object] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail or title,
        "instance": quote_path(path),
        "request_id": request_id.get(),
    }
    if errors is not None:
        body["errors"] = [error._asdict() for error in errors]
    # ASCII, because a lone surrogate cannot be encoded as UTF-8. The detail of an HTTPException
    # can be any object.
    return Response(json.dumps(body, default=str), status, headers, media_type=PROBLEM_JSON)


def error_response(path: str, error: AppError) -> Response:
    return problem(
        path, error.status_code, error.detail, headers=error.headers, errors=error.errors
    )


def add_error_handlers(app: FastAPI) -> None:
    app.exception_handler(AppError)(_app_error_handler)
    app.exception_handler(HTTPException)(_http_exception_handler)
    app.exception_handler(RequestValidationError)(_validation_error_handler)
    app.exception_handler(DBAPIError)(_database_error_handler)
    app.exception_handler(PoolTimeout)(_database_error_handler)
    app.exception_handler(StaleDataError)(_stale_data_handler)


async def _app_error_handler(request: Request, error: AppError) -> Response:
    if error.event:
        logger.warning(error.detail, extra={"event": error.event})
    return error_response(request.url.path, error)


async def _http_exception_handler(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request)) or headers.get("Allow", "")
    return problem(request.url.path, error.status_code, error.detail, headers=headers)


async def _validation_error_handler(request: Request, error: RequestValidationError) -> Response:
    if _has_wrong_content_type(request):
        return await _app_error_handler(request, UnsupportedMediaType())
    # The location and the reason, never the input: it may be a password.
    errors = [FieldError(_location(e), _message(e), e["type"]) for e in error.errors()]
    return await _app_error_handler(request, Invalid(errors))


async def _database_error_handler(request: Request, error: DBAPIError | PoolTimeout) -> Response:
    if isinstance(error, DBAPIError):
        if is_integrity_error(error):
            detail = "This conflicts with another resource, or refers to one that does not exist."
            return await _app_error_handler(request, Conflict(detail))
        reads = request.scope.get("method", "GET") in READ_METHODS
        if not is_transient_error(error, read_only=reads):
            raise error
    logger.error("The database is unavailable: %s", getattr(error, "orig", None) or error)
    return await _app_error_handler(request, ServiceUnavailable())


async def _stale_data_handler(request: Request, _: StaleDataError) -> Response:
    # On PostgreSQL, a row can be deleted after this request has read it.
    return await _app_error_handler(request, Conflict("It was just changed. Try again."))


def _location(error: Mapping[str, Any]) -> list[str]:
    """Where the error is, without names that the client made up."""
    parts = error["loc"][:-1] if error["type"] == "extra_forbidden" else error["loc"]
    return [
        str(part)
        for part in parts
        if (len(str(part)) <= 64 and str(part).isidentifier()) or isinstance(part, int)
    ]


def _message(error: Mapping[str, Any]) -> str:
    # Pydantic says "items" of a text if another rule comes before the one for its length.
    if error["type"] in _LENGTHS and isinstance(error["input"], str):
        name, sentence = _LENGTHS[error["type"]]
        return sentence.format(error["ctx"][name])
    # The only message of Pydantic that quotes the input.
    return "Unknown kind" if error["type"] == "union_tag_invalid" else str(error["msg"])


def _has_wrong_content_type(request: Request) -> bool:
    """Whether the request has a body, but not of the type that its route reads."""
    field = getattr(request.scope.get("route"), "body_field", None)
    headers = request.headers
    has_body = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
    if field is None or not has_body:
        return False
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if isinstance(field.field_info, Form):
        return content_type not in _FORM_TYPES
    return content_type != "application/json" and not content_type.endswith("+json")


def _allowed_methods(request: Request) -> list[str]:
    """The methods of every route with this path. Starlette only names those of the first one."""
    scope = request.scope
    # In a mount, `root_path` includes the path of the mount. The routes of the app do not, unless
    # the app itself is mounted.
    roots = {scope.get("app_root_path", ""), scope.get("root_path", "")}
    allowed = {
        method
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
        for root in roots
        if accepts(request.app.routes, {**scope, "root_path": root}, method)
    }
    return sorted(allowed | {"HEAD"} if "GET" in allowed else allowed)


def accepts(routes: Sequence[BaseRoute | RouteContext], scope: Scope, method: str) -> bool:
    """Whether one of the routes, or of the routes of an app mounted there, accepts the method."""
    probe = {name: scope[name] for name in _ROUTING_KEYS if name in scope}
    probe["method"] = method
    for route in iter_route_contexts(routes):
        match, child_scope = route.matches(probe)
        if match is not Match.FULL:
            continue
        mount = route.original_route
        # A mount without routes, such as a folder of files, decides by itself.
        if not isinstance(mount, Mount | Host) or not mount.routes:
            return True
        if accepts(mount.routes, {**probe, **child_scope}, method):
            return True
    return False
