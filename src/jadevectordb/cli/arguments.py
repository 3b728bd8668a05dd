"""Arguments that commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click


def json_value(kind: type, example: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback for an option whose value is JSON. kind: the Python type it must have. Wrong values are wrong usage."""

    def decode(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"this is not JSON ({error}): write it as in '{example}'.", ctx, param) from error
        if not isinstance(decoded, kind):
            raise click.BadParameter(f"write it as in '{example}'.", ctx, param)
        return decoded

    return decode


filter_option = click.option(
    "--filter",
    "condition",
    metavar="JSON",
    callback=json_value(dict, '{"pos": "noun"}'),
    help='Only vectors whose metadata match, such as \'{"pos": "noun", "year": {"$gte": 2000}}\'.',
)
