"""--format: a table for people, JSON, YAML or CSV for programs. Every command that prints data has one value in all of them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from jadevectordb.cli import terminal

_Function = TypeVar("_Function", bound=Callable[..., Any])
TABLE, JSON, YAML, CSV = "table", "json", "yaml", "csv"


def format_option(function: _Function) -> _Function:
    return click.option(
        "--format",
        "output",
        type=click.Choice([TABLE, JSON, YAML, CSV]),
        default=TABLE,
        show_default=True,
        help="How to print it.",
    )(function)


def show_plain(output: str, value: object, records: Iterable[Mapping[str, Any]]) -> None:
    """For programs: JSON or YAML of the value, or its records as CSV with a line of names first."""
    match output:
        case "json":
            terminal.print_json(value)
        case "yaml":
            import yaml

            click.echo(yaml.safe_dump(value, allow_unicode=True, sort_keys=False, default_flow_style=None), nl=False)
        case _:
            _print_csv(list(records))


def show_records(
    output: str,
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    value: object = None,
    right: Sequence[str] = (),
    nothing: str = "",
) -> None:
    """A list of things of one kind. columns: of the table. value: for JSON and YAML, if not the records themselves."""
    if output != TABLE:
        show_plain(output, records if value is None else value, records)
    elif records:
        rows = ([_cell(record.get(column)) for column in columns] for record in records)
        terminal.console().print(terminal.table(columns, rows, right=right))
    elif nothing:
        click.echo(nothing)


def show_facts(output: str, facts: Mapping[str, Any], sentence: str | None = None) -> None:
    """One thing: a sentence or a table of its facts for people."""
    if output != TABLE:
        show_plain(output, dict(facts), [facts])
    elif sentence is not None:
        click.echo(sentence)
    else:
        terminal.console().print(terminal.table(("", ""), [(name, _cell(value)) for name, value in facts.items()]))


def _print_csv(records: list[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for record in records for name in record))
    out = csv.writer(sys.stdout, lineterminator="\n")
    if names:
        out.writerow(names)
    out.writerows([_csv_cell(record.get(name)) for name in names] for record in records)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, dict | list | bool):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return terminal.compact(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
