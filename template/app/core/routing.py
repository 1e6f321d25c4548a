"""The router for an API: bodies that have one meaning only, and bounded ids in paths."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Path, Request, Response
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor

from app.core.errors import UnsupportedMediaType
from app.core.types import MAX_ID


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
    async def json(self) -> Any:
        text = (await self.body()).decode("utf-8")
        return json.loads(
            text, object_pairs_hook=_object_without_duplicates, parse_constant=_reject_constant
        )


class StrictRoute(APIRoute):
    """Reads JSON as RFC 8259 and I-JSON (RFC 7493) define it, and no multipart forms."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_strictly(request: Request) -> Response:
            # Each part of a multipart body can name an encoding, and some are slow to decode.
            if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
                raise UnsupportedMediaType
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class Router(APIRouter):
    """`router = Router(prefix="/books", tags=["books"])`: an APIRouter with strict JSON bodies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"route_class": StrictRoute, **options})


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not valid JSON")


async def get_settings(connection: HTTPConnection) -> Any:
    """The project's settings, for `SettingsDep`, which names their class."""
    return connection.app.state.settings
