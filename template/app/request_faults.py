"""What is wrong with a request: its fields, its content type, its method."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.params import Form
from starlette.routing import Match

FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}


def describe_faults(faults: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], str, str]]:
    """Name the place and the reason, never the input: it may be a password."""
    return [(place(fault), reason(fault), fault["type"]) for fault in faults]


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


def has_wrong_content_type(request: Request) -> bool:
    """Whether a body came, and not as the kind that the route reads."""
    body = getattr(request.scope.get("route"), "body_field", None)
    headers = request.headers
    if body is None or not (headers.get("Content-Length", "0") != "0" or is_chunked(request)):
        return False
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if isinstance(body.field_info, Form):
        return kind not in FORMS
    return kind != "application/json" and not kind.endswith("+json")


def is_chunked(request: Request) -> bool:
    return "Transfer-Encoding" in request.headers


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
