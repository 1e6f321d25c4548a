"""Guards: they fail when models and migrations drift apart."""

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from tests.conftest import alembic_config


def test_models_match_migrations(database_url: str) -> None:
    try:
        command.check(alembic_config(database_url))
    except CommandError as error:
        pytest.fail(
            f"{error}\nThe migrations do not build the tables that app/models describes. "
            'Run `alembic revision --autogenerate -m "..."`, and read what it wrote.',
            pytrace=False,
        )


def test_every_migration_can_be_undone_and_repeated(database_url: str) -> None:
    config = alembic_config(database_url)
    revisions = [*ScriptDirectory.from_config(config).walk_revisions()]
    command.downgrade(config, "base")

    for revision in reversed(revisions):
        # This repeats the revision before it.
        command.upgrade(config, revision.revision)
        if not revision.is_merge_point:
            command.downgrade(config, f"{revision.revision}-1")
    command.upgrade(config, "head")

    command.check(config)
