"""The application, as a table of contents."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import app as project
from app.api.openapi import describe_errors
from app.api.routers import include_routers
from app.db.session import Database
from app.errors import add_error_handlers
from app.logs import configure_logging
from app.middleware import add_middleware
from app.settings import Settings, load_settings, unknown_names

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build an application of its own; without settings it reads the environment and `.env`."""
    settings = settings or load_settings()
    configure_logging(settings)
    warn_of_unknown_names()
    app = FastAPI(
        title=project.TITLE,
        description=project.__doc__ or "",
        version=project.VERSION,
        lifespan=lifespan,
        # app/api/pages_router.py serves the documentation, with a policy that its page can keep.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs_are_on else None,
        # A client that follows would send its password again, and maybe without TLS.
        redirect_slashes=False,
    )
    app.state.settings = settings
    add_middleware(app, settings)
    add_error_handlers(app)
    include_routers(app, settings)
    describe_errors(app)
    return app


def warn_of_unknown_names() -> None:
    for name, hint in unknown_names():
        logger.warning(".env: %s is not a setting of this app%s", name, hint)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Database(app.state.settings) as database:
        app.state.database = database
        if not app.state.settings.in_development:
            await database.probe()
        yield


app = create_app()
