"""The router for an API: requests that have one meaning only, and bounded ids in paths."""

import json
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence, Set
from contextlib import aclosing
from typing import Annotated, Any, NoReturn, cast, get_args, get_origin
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Path, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import FormData, ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.core.errors import AppError, ContentTooLarge, FieldError, Invalid, UnsupportedMediaType
from app.core.types import MAX_ID, is_storable


class _IdConvertor(Convertor[int]):
    """Matches digits only: `/users/{user_id:id}`.

    `/users/{user_id}` would also match `/users/me`. Then DELETE /users/me, which does not exist,
    would be a 422 for an invalid id instead of a 405.
    """

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _IdConvertor())

# An id in a path, limited to what the database can hold: a larger one is a 422, not an error.
IdPath = Annotated[int, Path(ge=1, le=MAX_ID)]


class _StrictRequest(Request):
    # The names that a form of this route may contain only once.
    single_names: frozenset[str] = frozenset()

    async def json(self) -> Any:
        text = (await self.body()).decode("utf-8")
        found = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_reject_constant,
            parse_float=_finite_float,
        )
        # Only an escape can express a character that cannot be stored.
        if "\\u" in text and not all(map(is_storable, _texts_in(found))):
            raise _unstorable("body")
        return found

    async def _get_form(self, **limits: Any) -> FormData:
        _check_encoded(await self.body(), "body")
        form = await super()._get_form(**limits)
        _check_single(form, self.single_names, "body")
        return form


class StrictRoute(APIRoute):
    """Reads JSON as RFC 8259 and I-JSON (RFC 7493) define it, and no multipart forms.

    In a query or a form, only a list may repeat its name. If another field had two values, another
    program might read the other one.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        single_in_query = _single_names(_query_fields(self.dependant))
        single_in_form = _single_names(_form_fields(self.body_field))

        async def handle_strictly(request: Request) -> Response:
            if request.scope["query_string"]:
                _check_single(request.query_params, single_in_query, "query")
            if self.body_field is None:
                return _closing_generator(await handle(request))
            # Each part of a multipart body can name an encoding, and some are slow to decode.
            if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
                raise UnsupportedMediaType
            strict = _StrictRequest(request.scope, request.receive)
            strict.single_names = single_in_form
            try:
                return _closing_generator(await handle(strict))
            except HTTPException as error:
                # FastAPI answers every error in a body with the same 400.
                if isinstance(error.__cause__, AppError):
                    raise error.__cause__ from None
                raise

        return handle_strictly


class Router(APIRouter):
    """`router = Router(prefix="/books", tags=["books"])`: an APIRouter with strict JSON bodies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"route_class": StrictRoute, **options})
        self._number_of_routes = -1

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Skip these routes if the path lacks their prefix: FastAPI compares it with every route."""
        if len(self.routes) != self._number_of_routes:
            # Routes of Starlette have no prefix, and those of routers below are not known here.
            paths = [getattr(route, "path", "") for route in self.routes]
            start, self._number_of_routes = self.prefix.partition("{")[0], len(paths)
            self._start = start if all(path.startswith(start) for path in paths) else ""
        return super().matches(scope) if self._start in scope["path"] else (Match.NONE, {})


async def check_request(connection: HTTPConnection) -> None:
    """Reject a body that is too large, and text that no database could store.

    Starlette checks the size of a body only when it is read, which may be after a route's work.
    """
    scope = connection.scope
    limit = scope.get(MAX_BODY_SIZE_SCOPE_KEY)
    length = connection.headers.get("Content-Length", "")
    if limit is not None and length.isdecimal() and int(length[:20]) > limit:
        raise ContentTooLarge
    for place, text in (("path", scope.get("raw_path") or b""), ("query", scope["query_string"])):
        # Without this character, it is plain ASCII (RFC 3986).
        if b"%" in text:
            _check_encoded(text, place)
    for _, value in scope["headers"]:
        if b"\0" in value:
            raise _unstorable("header")


def _check_encoded(text: bytes, place: str) -> None:
    """Reject percent-encoded text that is not UTF-8, or contains a NUL."""
    try:
        is_valid = is_storable(unquote_to_bytes(text).decode("utf-8"))
    except UnicodeDecodeError:
        is_valid = False
    if not is_valid:
        raise _unstorable(place)


def _unstorable(place: str) -> Invalid:
    reason = "Leave out NUL characters, and encode all text as UTF-8."
    return Invalid([FieldError([place], reason, "unstorable_text")])


def _texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value, names included. Not recursive, since the nesting may be deep."""
    pending = [value]
    while pending:
        match pending.pop():
            case str(text):
                yield text
            case dict(pairs):
                pending += [*pairs.keys(), *pairs.values()]
            case list(items):
                pending += items


def _check_single(
    values: ImmutableMultiDict[str, Any], single_names: frozenset[str], place: str
) -> None:
    counts = Counter(name for name, _ in values.multi_items())
    repeated = [name for name in counts if counts[name] > 1 and name in single_names]
    if repeated:
        reason = "Send this field only once."
        raise Invalid([FieldError([place, name], reason, "repeated") for name in repeated])


def _single_names(fields: Iterable[tuple[str, FieldInfo]]) -> frozenset[str]:
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for name, info in fields:
        names[_is_list(info.annotation)].update(_names_of(name, info))
    return frozenset(names[False] - names[True])


def _names_of(name: str, info: FieldInfo) -> Iterator[str]:
    """Every name under which a model may read this field, including its own."""
    yield name
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias, info.alias]
    yield from (choice for choice in choices if isinstance(choice, str))


def _is_list(annotation: object) -> bool:
    """Whether this is a list, tuple or set, or may be one: `list[str] | None`."""
    kind = get_origin(annotation) or annotation
    is_sequence = isinstance(kind, type) and issubclass(kind, list | tuple | Set | Sequence)
    return (is_sequence and kind is not str) or any(map(_is_list, get_args(annotation)))


def _query_fields(dependant: Dependant) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a query, including those of models and those that dependencies read."""
    for field in dependant.query_params:
        alone = {field.name: field.field_info}
        yield from getattr(field.field_info.annotation, "model_fields", alone).items()
    for dependency in dependant.dependencies:
        yield from _query_fields(dependency)


def _form_fields(body_field: Any) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a form: those of its model, or one for each parameter of the route."""
    if body_field is not None and isinstance(body_field.field_info, Form):
        yield from getattr(body_field.field_info.annotation, "model_fields", {}).items()


def _closing_generator(response: Response) -> Response:
    """A response that closes its generator when it ends, even if the client has gone.

    Otherwise the generator would keep its database connection until it is garbage-collected.
    """
    body = getattr(response, "body_iterator", None)
    if not hasattr(body, "aclose"):
        return response

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(cast(Any, body)):
            await response(scope, receive, send)

    return cast(Response, respond)


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _finite_float(text: str) -> float:
    """Python reads `1e400` as infinity, which JSON cannot express in the response."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not valid JSON")


async def get_settings(connection: HTTPConnection) -> Any:
    """The project's settings, for `SettingsDep`, which names their class."""
    return connection.app.state.settings
