"""Alembic's environment. `app/core/migrations.py` does the work."""

import app.models
from app.core.migrations import run_migrations
from app.settings import load_settings

run_migrations(app.models.metadata, load_settings)
