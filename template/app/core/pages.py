"""Pages for developers: the welcome page at / and the API documentation at /docs."""

import base64
import hashlib
from html import escape
from importlib.resources import files
from string import Template

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.core.database import DatabaseDep
from app.core.health import migration_state

welcome = APIRouter(include_in_schema=False)
docs = APIRouter(include_in_schema=False)

# The only thing that a browser loads from elsewhere, and only for /docs. It must have these digests
# (W3C Subresource Integrity).
_SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
_SWAGGER_DIGESTS = {
    f"{_SWAGGER}/swagger-ui-bundle.js": "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
    f"{_SWAGGER}/swagger-ui.css": "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
}
_WELCOME = files("app.core").joinpath("welcome.html").read_text("utf-8")


@welcome.get("/")
async def read_welcome(request: Request, database: DatabaseDep) -> HTMLResponse:
    try:
        async with database.readers() as session:
            state = await migration_state(session)
        status, migrations = ("good", "up to date") if state.at_head else ("bad", str(state))
    except SQLAlchemyError:
        status, migrations = "bad", "the database does not answer: run alembic upgrade head"
    app = request.app
    page = Template(_WELCOME).substitute(
        name=escape(app.title),
        description=escape(app.description),
        version=escape(app.version),
        database=escape(make_url(app.state.settings.database_url).render_as_string()),
        status=status,
        migrations=escape(migrations),
    )
    style = _source_hash(page, "style")
    policy = f"default-src 'none'; img-src data:; style-src {style}; frame-ancestors 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


@docs.get("/docs")
async def read_docs(request: Request) -> HTMLResponse:
    schema_url = request.scope.get("root_path", "") + request.app.openapi_url
    script_url, style_url = _SWAGGER_DIGESTS
    response = get_swagger_ui_html(
        openapi_url=schema_url,
        title=request.app.title,
        swagger_js_url=script_url,
        swagger_css_url=style_url,
        swagger_favicon_url="data:,",
    )
    page = bytes(response.body).decode()
    for url, digest in _SWAGGER_DIGESTS.items():
        page = page.replace(f'"{url}"', f'"{url}" integrity="{digest}" crossorigin="anonymous"')
    script = _source_hash(page, "script")
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {script} {_SWAGGER}/; "
        f"style-src 'unsafe-inline' {_SWAGGER}/; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _source_hash(page: str, element: str) -> str:
    """The name of a page's only inline <style> or <script> in a content security policy."""
    source = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
