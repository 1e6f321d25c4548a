"""The pages for people: a welcome at / in development, and the API's documentation at /docs."""

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

import app
from app.api.deps import SessionDep, SettingsDep
from app.db.revision import migration_state

welcome = APIRouter(include_in_schema=False)
docs = APIRouter(include_in_schema=False)

# The one thing that is fetched from elsewhere: by the browser, and only for /docs. It runs nothing
# but what has these digests (W3C Subresource Integrity).
SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
SWAGGER_DIGESTS = {
    f"{SWAGGER}/swagger-ui-bundle.js": "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
    f"{SWAGGER}/swagger-ui.css": "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
}
WELCOME = files("app.api").joinpath("welcome.html").read_text("utf-8")


def source_hash(page: str, element: str) -> str:
    """What a content security policy calls the one inline <style> or <script> of a page."""
    source = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@welcome.get("/")
async def read_welcome(session: SessionDep, settings: SettingsDep) -> HTMLResponse:
    try:
        state = await migration_state(session)
        health, migrations = ("good", "up to date") if state.at_head else ("bad", str(state))
    except SQLAlchemyError:
        health, migrations = "bad", "the database does not answer: run alembic upgrade head"
    page = Template(WELCOME).substitute(
        name=escape(app.TITLE),
        description=escape(app.__doc__ or ""),
        version=escape(app.VERSION),
        database=escape(make_url(settings.database_url).render_as_string()),
        health=health,
        migrations=escape(migrations),
    )
    style = source_hash(page, "style")
    policy = f"default-src 'none'; img-src data:; style-src {style}; frame-ancestors 'none'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


@docs.get("/docs")
async def read_docs(request: Request) -> HTMLResponse:
    schema = request.scope.get("root_path", "") + request.app.openapi_url
    code, style = SWAGGER_DIGESTS
    response = get_swagger_ui_html(
        openapi_url=schema,
        title=app.TITLE,
        swagger_js_url=code,
        swagger_css_url=style,
        swagger_favicon_url="data:,",
    )
    page = bytes(response.body).decode()
    for url, digest in SWAGGER_DIGESTS.items():
        page = page.replace(f'"{url}"', f'"{url}" integrity="{digest}" crossorigin="anonymous"')
    script = source_hash(page, "script")
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src {script} {SWAGGER}/; "
        f"style-src 'unsafe-inline' {SWAGGER}/; frame-ancestors 'none'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})
