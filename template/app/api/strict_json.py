"""JSON as RFC 8259 and I-JSON (RFC 7493) have it: UTF-8, no name twice, no NaN."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute


class StrictRequest(Request):
    async def json(self) -> Any:
        text = (await self.body()).decode("utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


class StrictRoute(APIRoute):
    """`APIRouter(route_class=StrictRoute)`: what others read differently is refused."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name came twice")
    return found


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
