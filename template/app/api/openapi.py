"""The published schema (OpenAPI): errors are described as what they are, problem details."""

from typing import Any

from fastapi import FastAPI

from app.errors import PROBLEM, AppError, ServiceUnavailable

PROBLEM_SCHEMA = {
    "type": "object",
    "description": "RFC 9457. `errors` comes with 422 alone, one entry per fault.",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
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
PROBLEM_CONTENT = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def answers(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """What a route may answer instead: `responses=answers(NotFound, Conflict)`."""
    return {int(error.status_code): {"description": error.detail} for error in errors}


def describe_errors(app: FastAPI) -> None:
    """Give every operation its error responses, in place of the framework's own."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = with_problems(FastAPI.openapi(app))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def with_problems(schema: dict[str, Any]) -> dict[str, Any]:
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM_SCHEMA
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            responses = operation["responses"]
            for status, description in refusals(operation).items():
                responses.setdefault(status, {"description": description})
            responses["default"] = {"description": "Any other error", "content": PROBLEM_CONTENT}
            for status, response in responses.items():
                if status >= "4" and status != "default":
                    response["content"] = PROBLEM_CONTENT
    return schema


def refusals(operation: dict[str, Any]) -> dict[str, str]:
    """What any operation of this kind may answer."""
    found = {str(int(ServiceUnavailable.status_code)): ServiceUnavailable.detail}
    if "requestBody" in operation:
        found["400"] = "The body can't be read."
        found["413"] = "The body is too large."
        found["415"] = "The body is of another content type."
    schemes = operation.get("security", [])
    if schemes:
        found["401"] = "Without a valid token, or with one that is too old for this."
    if needed := [scope for scheme in schemes for scopes in scheme.values() for scope in scopes]:
        found["403"] = f"Needs the permission {', '.join(needed)}."
    return found
