"""Bodies that mean one thing: JSON as RFC 8259 and I-JSON (RFC 7493) have it, and no multipart."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.errors import UnsupportedMediaType


class StrictRequest(Request):
    async def json(self) -> Any:
        text = (await self.body()).decode("utf-8")
        return json.loads(text, object_pairs_hook=object_of, parse_constant=refuse_constant)


class StrictRoute(APIRoute):
    """`APIRouter(route_class=StrictRoute)` refuses bodies that two parsers could read differently."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_strictly(request: Request) -> Response:
            # Each part of such a body names an encoding of its own, and some are slow to decode.
            if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
                raise UnsupportedMediaType
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name came twice")
    return found


def refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
