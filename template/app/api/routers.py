"""Which routers the app has, and where."""

from fastapi import APIRouter, FastAPI

from app.api.pages_router import docs, welcome
from app.api.v1.health_router import router as health
from app.api.v1.home_router import router as home
from app.settings import Settings


def include_routers(app: FastAPI, settings: Settings) -> None:
    v1 = APIRouter(prefix="/api/v1")
    v1.include_router(home)

    app.include_router(v1)
    app.include_router(health)
    if settings.docs_are_on:
        app.include_router(docs)
    if settings.in_development:
        app.include_router(welcome)
