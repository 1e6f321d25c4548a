"""The command `generate`, whose code is in the folder generators/, which production lacks."""

import sys
from importlib import import_module
from typing import Any

import typer

from app.core.settings import PROJECT_FOLDER

# They are for the commands in that folder, `--help` included.
ANY_ARGUMENTS: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def generate(context: typer.Context) -> None:
    """Write a resource, a field, a setting or a command. For development only."""
    if not (PROJECT_FOLDER / "generators/commands.py").exists():
        typer.echo("Error: no folder generators/: production is installed without it", err=True)
        raise typer.Exit(1)
    sys.path.insert(0, str(PROJECT_FOLDER))
    commands = import_module("generators.commands")
    commands.cli(context.args, prog_name=context.command_path)
