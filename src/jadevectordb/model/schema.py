"""What a database's metadata looks like, and how a caller's dicts become the JSON bytes that the database stores.

A schema is optional. Declared fields are checked on every write and make columns faster and typed; a strict schema refuses
everything that is not declared. Null is allowed everywhere.

    {"pos": "string", "tags": "string[]", "gloss": "text", "year": {"type": "integer"}, "author.born": "date"}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from jadevectordb.model import limits
from jadevectordb.model.errors import ErrorCode, JadeError


class FieldType(StrEnum):
    """The type of a declared field; `[]` marks arrays of it."""

    STRING = "string"
    STRINGS = "string[]"
    INTEGER = "integer"
    INTEGERS = "integer[]"
    NUMBER = "number"  # integer or floating point
    NUMBERS = "number[]"
    BOOLEAN = "boolean"
    BOOLEANS = "boolean[]"
    DATE = "date"  # stored as a string; compared as an instant
    DATES = "date[]"
    TEXT = "text"  # a string for full-text search; filters on it read records
    TEXTS = "text[]"

    @property
    def is_array(self) -> bool:
        return self.value.endswith("[]")

    @property
    def element(self) -> str:
        """The type without its `[]`."""
        return self.value.removesuffix("[]")


class Schema(msgspec.Struct, frozen=True):
    """Declared fields by path, in the caller's order. strict: a vector may carry no other field."""

    fields: dict[str, FieldType] = {}
    strict: bool = False
    dates: frozenset[str] = frozenset()  # the fields that compare as instants; follows from `fields`

    def __post_init__(self) -> None:
        dates = frozenset(path for path, declared in self.fields.items() if declared.element == "date")
        msgspec.structs.force_setattr(self, "dates", dates)

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields declared for full-text search."""
        return tuple(path for path, declared in self.fields.items() if declared.element == "text")


NO_SCHEMA: Final = Schema()
_SYNONYMS: Final = {
    "str": "string",
    "keyword": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "datetime": "date",
    "timestamp": "date",
}


def parse_schema(value: Schema | Mapping[str, Any] | None, *, strict: bool = False) -> Schema:
    """The schema a caller wrote as `{path: type}` or `{path: {"type": type, "array": bool}}`. Raises INVALID_ARGUMENT."""
    if value is None:
        return Schema(strict=strict)
    if isinstance(value, Schema):
        return value
    if not isinstance(value, Mapping):
        raise _invalid(f"a schema is a dict such as {{'pos': 'string'}}, not {type(value).__name__}")
    if len(value) > limits.SCHEMA_FIELDS_MAX:
        raise _invalid(
            f"a schema of {len(value)} fields is too large, at most {limits.SCHEMA_FIELDS_MAX} can be declared"
        )
    return Schema({_path(path): _field_type(path, declared) for path, declared in value.items()}, strict)


def _path(path: object) -> str:
    if not isinstance(path, str) or not path:
        raise _invalid(f"a field is named by a string that is not empty, not by {path!r}")
    if len(path) > limits.FIELD_PATH_LENGTH_MAX or path.count(".") >= limits.FIELD_PATH_DEPTH_MAX:
        raise _invalid(
            f"the field {path[:40]!r} has too long a path: at most {limits.FIELD_PATH_LENGTH_MAX} characters "
            f"and {limits.FIELD_PATH_DEPTH_MAX} parts"
        )
    if path.startswith("$"):
        raise _invalid(f"the field {path!r} cannot begin with $, which marks operators in filters")
    return path


def _field_type(path: str, declared: object) -> FieldType:
    if isinstance(declared, FieldType):
        return declared
    if isinstance(declared, Mapping):
        unknown = sorted(str(key) for key in declared if key not in ("type", "array"))
        if unknown or "type" not in declared or not isinstance(declared.get("array", False), bool):
            raise _invalid(
                f"the field {path!r} is declared as {{'type': ..., 'array': True or False}}; got {dict(declared)!r}"
            )
        name, is_array = declared["type"], declared.get("array", False)
        if is_array and isinstance(name, str) and not name.endswith("[]"):
            name += "[]"
    else:
        name = declared
    if isinstance(name, str):
        try:
            return FieldType(name)
        except ValueError:
            pass
    names = [str(known) for known in FieldType]
    near = ""
    if isinstance(name, str):
        base, array = name.removesuffix("[]"), "[]" if name.endswith("[]") else ""
        guess = _SYNONYMS.get(base.lower()) or next(iter(difflib.get_close_matches(base.lower(), names, n=1)), None)
        near = f"; did you mean '{guess.removesuffix('[]')}{array}'?" if guess else ""
    raise _invalid(
        f"the field {path!r} is declared {name!r}, which is no type{near or '; types are ' + ', '.join(names)}"
    )


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
