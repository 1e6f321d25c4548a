"""Models and migrations for one test, run by Alembic's own commands."""

import io
import shutil
import textwrap
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from tests.conftest import ROOT, alembic_config

ENV = """
import runpy
from pathlib import Path

from app.core.migrations import run_migrations
from app.settings import load_settings

models = runpy.run_path(str(Path(__file__).with_name("models.py")))
run_migrations(models["metadata"], load_settings)
"""

MODELS = """
from sqlalchemy import *

from app.core.types import NAMING_CONVENTION

metadata = MetaData(naming_convention=NAMING_CONVENTION)
"""

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = {revision!r}, {down_revision!r}


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
    pass
"""


class Revisions:
    """A folder in place of the project's own alembic/, and an empty database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENV, "utf-8")
        shutil.copy(ROOT / "alembic" / "script.py.mako", folder)
        self.write_models()
        self._count = 0

    def config(self, output: io.StringIO | None = None) -> Config:
        config = alembic_config(self.url)
        config.set_main_option("script_location", str(self.folder))
        config.output_buffer = output or io.StringIO()
        config.stdout = io.StringIO()
        return config

    def write_models(self, *tables: str) -> None:
        (self.folder / "models.py").write_text("\n".join([MODELS, *tables]), "utf-8")

    def write(self, upgrade: str) -> None:
        """A migration with this body."""
        names = [f"{number:03}" if number else None for number in range(self._count + 2)]
        body = textwrap.indent(textwrap.dedent(upgrade).strip(), "    ")
        text = REVISION.format(revision=names[-1], down_revision=names[-2], upgrade=body)
        (self.folder / "versions" / f"{names[-1]}.py").write_text(text, "utf-8")
        self._count += 1

    def migrate(self, upgrade: str) -> None:
        self.write(upgrade)
        self.upgrade()

    def upgrade(self) -> None:
        command.upgrade(self.config(), "head")

    def autogenerate(self) -> str:
        """The body of the upgrade that Alembic writes for the models; it is run, too."""
        self._count += 1
        script: Any = command.revision(
            self.config(), "change", autogenerate=True, rev_id=f"{self._count:03}"
        )
        text = Path(script.path).read_text("utf-8")
        self.upgrade()
        return text[text.index("def upgrade") : text.index("def downgrade")]

    def check(self) -> None:
        """Raise CommandError if the models and the database differ."""
        command.check(self.config())

    def run(self, *statements: str) -> list[Any]:
        """The rows of the last statement."""
        engine = create_engine(self.url)
        try:
            with engine.begin() as connection:
                results = [connection.exec_driver_sql(statement) for statement in statements]
                return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
        finally:
            engine.dispose()

    def statement(self, name: str) -> str:
        """What SQLite has stored for a table or an index, in one line."""
        ((sql,),) = self.run(f"SELECT sql FROM sqlite_master WHERE name = '{name}'")
        return " ".join(sql.split())
