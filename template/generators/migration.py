"""`python -m generators.migration URL [MESSAGE]` runs all migrations in a new database.

With a message, it then writes another migration and runs it, too. At the end, it compares the
database with the models.

It runs in the copy of the project, whose models differ from those that the command has imported.
"""

import sys
from argparse import Namespace

from alembic import command
from alembic.config import Config
from alembic.util import CommandError


def main(url: str, message: str | None = None) -> None:
    config = Config("alembic.ini", cmd_opts=Namespace(x=[f"url={url}"]))
    command.upgrade(config, "head")
    if message:
        command.revision(config, message, autogenerate=True)
        command.upgrade(config, "head")
    command.check(config)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CommandError as error:
        sys.exit(str(error))
