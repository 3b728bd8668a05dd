"""The `jade` command: the embedded database from a shell.

Exit codes: 0 done; 1 it could not be done, and one sentence on stderr says why and what to do; 2 wrong usage.
"""

from __future__ import annotations

from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli import databases, demo, maintenance, read, serve, terminal, transfers


class _Commands(click.Group):
    """Errors of the database become a sentence instead of a traceback; commands are listed in the order they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except jade.JadeError as error:
            click.echo(f"error: {error.message}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(jade.__version__, prog_name="jade")
def commands() -> None:
    """JadeVectorDB: a vector database in a folder.

    FOLDER is a folder of databases as `jadevectordb.open` makes it, NAME one of its databases. One process at a time can
    have a folder open.
    """


commands.add_command(demo.demo)
for _group in (serve.COMMANDS, databases.COMMANDS, read.COMMANDS, transfers.COMMANDS, maintenance.COMMANDS):
    for _command in _group:
        commands.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    terminal.accept_any_character()
    commands(prog_name="jade")
