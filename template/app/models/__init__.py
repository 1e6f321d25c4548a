"""Imports every model, here and in each `app/*/models.py`: none has to be registered."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from app.db.base import Base

for module in iter_modules(__path__):
    import_module(f"{__name__}.{module.name}")
for file in sorted(Path(__file__).parents[1].glob("*/models.py")):
    import_module(f"app.{file.parent.name}.models")

metadata = Base.metadata
