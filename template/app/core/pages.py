"""Pages for developers: the welcome page at / and the API documentation at /docs."""

import base64
import copy
import hashlib
import os
import re
import sys
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.routing import Match
from starlette.types import Scope

from app.core.database import Database, DatabaseDep
from app.core.errors import accepts
from app.core.health import migration_state
from app.core.settings import PROJECT_FOLDER


class _WelcomeRouter(APIRouter):
    """Gives way to a route, a mount or a frontend for / that the app adds later."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            others = [
                route
                for route in iter_route_contexts(scope["app"].routes)
                if route.original_route not in self.routes
            ]
            # FastAPI keeps frontends apart, and has no public way to ask for them.
            others += getattr(scope["app"].router, "_iter_low_priority_routes", list)()
            if accepts(others, scope, scope["method"]):
                return Match.NONE, {}
        return match, child_scope


welcome = _WelcomeRouter(include_in_schema=False)
docs = APIRouter(include_in_schema=False)

_WELCOME = files("app.core").joinpath("welcome.html").read_text("utf-8")
_DOCS = files("app.core").joinpath("docs.html").read_text("utf-8")
_ICON = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
    "<rect width='32' height='32' rx='8' fill='%230b7a68'/>"
    "<path d='M8 22V10m5 12V10m5 12 5-11M6 25h20' stroke='white' stroke-width='2.5'/></svg>"
)


@welcome.get("/")
async def read_welcome(request: Request, database: DatabaseDep) -> HTMLResponse:
    app = request.app
    works, heading, state = await _database_state(app.title, database)
    page = Template(_WELCOME).substitute(
        icon=_ICON,
        name=escape(app.title),
        description=escape(app.description),
        version=escape(app.version),
        status="good" if works else "bad",
        heading=escape(heading),
        state=escape(state),
        bin=escape(_commands_folder()),
        database=escape(make_url(app.state.settings.database_url).render_as_string()),
    )
    return _page(page)


@docs.get("/openapi.json")
async def read_schema(request: Request) -> JSONResponse:
    """The OpenAPI schema, with the path under which a proxy serves the app (`--root-path`)."""
    schema = request.app.openapi()
    if root_path := request.scope.get("root_path", ""):
        schema = copy.deepcopy(schema)
        schema["servers"] = [{"url": root_path}]
        for scheme in schema["components"].get("securitySchemes", {}).values():
            for flow in scheme.get("flows", {}).values():
                # A page resolves it against its own address, not against the server.
                flow["tokenUrl"] = root_path + flow["tokenUrl"]
    return JSONResponse(schema)


@docs.get("/docs")
async def read_docs(request: Request) -> HTMLResponse:
    page = Template(_DOCS).substitute(icon=_ICON, title=escape(request.app.title))
    return _page(page, "'self'")


@docs.get("/docs/{name}")
async def read_docs_file(name: Literal["swagger-ui.css", "swagger-ui-bundle.js"]) -> FileResponse:
    """Swagger UI comes from an installed package, so the documentation works offline."""
    file = Path(str(files("fastapi_swagger.resources"))) / name
    return FileResponse(file, headers={"Cache-Control": "private, max-age=3600"})


async def _database_state(title: str, database: Database) -> tuple[bool, str, str]:
    """Whether the app can work, a heading that says so, and the details."""
    try:
        async with database.readers.begin() as session:
            state = await migration_state(session)
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        return False, f"{title} cannot read its database", str(reason)
    if state.at_head:
        return True, f"{title} is running", "The database is up to date."
    if state.is_ready:
        return True, f"{title} is running", f"The {state}"
    return False, f"{title} needs a migration", f"The {state}"


def _commands_folder() -> str:
    """What comes before a command of the project, such as `.venv/bin/`."""
    folder = Path(sys.prefix, "Scripts" if os.name == "nt" else "bin")
    is_inside = folder.is_relative_to(PROJECT_FOLDER)
    return f"{folder.relative_to(PROJECT_FOLDER)}{os.sep}" if is_inside else ""


def _page(page: str, *sources: str) -> HTMLResponse:
    """A page that may run its own inline style and script, and load from these sources."""
    rules = {
        "default-src": ["'none'"],
        "frame-ancestors": ["'none'"],
        "img-src": ["data:"],
        "style-src": [source_hash(page, "style"), *sources],
        "script-src": [source_hash(page, "script"), *sources],
        "connect-src": sources or ["'none'"],
    }
    policy = "; ".join(f"{rule} {' '.join(allowed)}" for rule, allowed in rules.items())
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def source_hash(page: str, element: str) -> str:
    """The name of a page's only inline <style> or <script> in a content security policy."""
    source = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digest = hashlib.sha256(source[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
