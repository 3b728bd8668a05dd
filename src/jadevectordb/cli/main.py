"""The `jade` command: databases in a folder or on a server, from a shell.

Exit codes: 0 done; 1 it could not be done, and one sentence on stderr says why and what to do; 2 wrong usage.
"""

from __future__ import annotations

from typing import Any

import click

import jadevectordb as jade
from jadevectordb.cli import (
    bench,
    cluster,
    completion,
    databases,
    demo,
    maintenance,
    read,
    serve,
    server,
    sign_in,
    terminal,
    transfers,
    write,
)

_SIGN_IN = " Sign in with `jade login URL`, or give --api-key."


class _Commands(click.Group):
    """Errors of the database become a sentence instead of a traceback; commands are listed in the order they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except jade.JadeError as error:
            hint = _SIGN_IN if error.code is jade.ErrorCode.UNAUTHORIZED else ""
            click.echo(f"error: {error.message}{hint}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(jade.__version__, prog_name="jade")
def commands() -> None:
    """JadeVectorDB: a vector database in a folder, or on a server.

    NAME is a database. Where it is: a folder, as `jadevectordb.open` makes it (one process at a time can have a folder open); the
    URL of a server, http://... or https://...; or @PROFILE, a server saved by `jade login` (@ alone: the one saved
    as "default"). --url and --profile may stand for it: `jade search --url URL NAME --id X`.

    \b
    jade serve                                       start a server
    jade search ./data words --id w1                 a folder
    jade search http://127.0.0.1:8080 words --id w1  a server
    jade status --url http://127.0.0.1:8080
    jade cluster up --nodes 3                        a cluster on this machine
    """


commands.add_command(demo.demo)
for _group in (
    serve.COMMANDS,
    databases.COMMANDS,
    read.COMMANDS,
    write.COMMANDS,
    transfers.COMMANDS,
    maintenance.COMMANDS,
    bench.COMMANDS,
    server.COMMANDS,
    cluster.COMMANDS,
    sign_in.COMMANDS,
    completion.COMMANDS,
):
    for _command in _group:
        commands.add_command(_command)


def main() -> None:
    """Entry point of the console script."""
    terminal.accept_any_character()
    commands(prog_name="jade")
