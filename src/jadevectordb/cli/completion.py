"""`jade completion`: lets the shell complete commands and options with the Tab key."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: echo 'eval "$(jade completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(jade completion zsh)"' >> ~/.zshrc
    fish: jade completion fish > ~/.config/fish/completions/jade.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "jade", "_JADE_COMPLETE").source())


COMMANDS = (completion,)
