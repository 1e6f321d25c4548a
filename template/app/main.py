"""The application: a table of contents."""

from fastapi import FastAPI

import app as project
from app.api.routers import include_routers
from app.core.app import build_app
from app.settings import Settings, load_settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Without settings, it reads the environment and `.env`."""
    settings = settings or load_settings()
    app = build_app(
        settings,
        title=project.TITLE,
        description=project.__doc__ or "",
        version=project.VERSION,
    )
    app.state.settings = settings
    include_routers(app, settings)
    return app


app = create_app()
