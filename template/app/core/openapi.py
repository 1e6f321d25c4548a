"""The published schema (OpenAPI): error responses are documented as problem details."""

from typing import Any

from fastapi import FastAPI

from app.core.errors import PROBLEM_JSON, AppError, Conflict, NotFound, ServiceUnavailable

_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "RFC 9457. Only a 422 has `errors`, with one entry for each invalid value.",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "examples": ["about:blank"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference", "examples": ["/api/v1/"]},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": "string"}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}
_PROBLEM_CONTENT = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def error_responses(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Further errors of a route: `responses=error_responses(TooManyAttempts)`.

    The usual ones are documented without it: 404 where the path has a parameter, 409 where the
    route reads JSON or deletes what such a path names, and those of the body, the login and the
    permission.
    """
    return {int(error.status_code): {"description": error.detail} for error in errors}


def describe_errors(app: FastAPI) -> None:
    """Document the error responses of every operation, in place of FastAPI's own."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(FastAPI.openapi(app))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    _publish_optional_login(schema)
    for path, operations in schema.get("paths", {}).items():
        for method, operation in operations.items():
            responses = operation["responses"]
            for status, description in _usual_errors(method, path, operation).items():
                responses.setdefault(status, {"description": description})
            responses["default"] = {"description": "Any other error", "content": _PROBLEM_CONTENT}
            for status, response in responses.items():
                if status >= "4" and status != "default":
                    response["content"] = _PROBLEM_CONTENT
    return schema


def _publish_optional_login(schema: dict[str, Any]) -> None:
    """Publish a scheme with `"x-optional": "token"` as "no token, or the scheme `token`".

    OpenAPI expresses "no token" as an empty alternative, which FastAPI cannot declare.
    """
    schemes = schema["components"].get("securitySchemes", {})
    for marked in [name for name, scheme in schemes.items() if "x-optional" in scheme]:
        scheme = schemes.pop(marked)
        name = scheme.pop("x-optional")
        schemes.setdefault(name, scheme)
        for operations in schema["paths"].values():
            for operation in operations.values():
                security = operation.get("security", [])
                if {marked: []} in security:
                    security.remove({marked: []})
                    # A route that also requires the login is not optional after all.
                    if not any(name in alternative for alternative in security):
                        security += [{}, {name: []}]


def _usual_errors(method: str, path: str, operation: dict[str, Any]) -> dict[str, str]:
    """The errors that any operation of this kind may answer with."""
    found = {"503": ServiceUnavailable.detail}
    if "requestBody" in operation:
        found["400"] = "The body cannot be read."
        found["413"] = "The body is too large."
        found["415"] = "The body has an unsupported content type."
        # A form is read by a login or an upload; JSON is what changes rows.
        if "application/json" in operation["requestBody"]["content"]:
            found["409"] = Conflict.detail
    if "{" in path:
        found["404"] = NotFound.detail
        if method == "delete":
            # Other rows may refer to this one.
            found["409"] = Conflict.detail
    schemes = operation.get("security", [])
    if schemes:
        found["401"] = "The token is missing or invalid, or the login is too old."
    if needed := [scope for scheme in schemes for scopes in scheme.values() for scope in scopes]:
        found["403"] = f"Needs the permission {', '.join(needed)}."
    return found
