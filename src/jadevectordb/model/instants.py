"""Points in time inside metadata: which strings are dates, and which instant each one means.

JSON has no dates, so a date is stored as a string: RFC 3339, or its short form `2024-05-17`. Filters that compare instants, the
columns behind them and the schema must agree on which strings are dates; they agree because this is the only place that says so.

A date is `YYYY-MM-DD`, optionally followed by `T`, `t` or a space, `HH:MM`, optionally `:SS` with a fraction of 1 to 9 digits, and
optionally `Z`, `z`, `+HH:MM` or `+HHMM`. Without an offset it is UTC; without a time it is midnight. Digits beyond the
microsecond are cut off. Anything else, a date that is in no calendar and a leap second included, is a plain string.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SHAPE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def parse_instant(text: str) -> int | None:
    """Microseconds since 1970-01-01 UTC, or None when the text is not a date."""
    if len(text) < 10 or text[4] != "-" or _SHAPE.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:  # the shape is right, but the calendar has no such day or the clock no such time
        return None
    return instant_of(moment)


def instant_of(moment: date) -> int:
    """Microseconds since 1970-01-01 UTC of a date (its midnight) or a datetime (UTC when it has no time zone)."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    elif moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def instant_text(moment: date) -> str:
    """How a date or datetime is stored: RFC 3339 in UTC when it has a time zone, ISO 8601 without an offset when it has none."""
    if isinstance(moment, datetime) and moment.utcoffset() is not None:
        try:
            return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        except OverflowError:  # the first or the last day of the calendar: keep the offset it came with
            return moment.isoformat()
    return moment.isoformat()
