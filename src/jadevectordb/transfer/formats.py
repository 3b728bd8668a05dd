"""The file formats, and which one a file name means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from jadevectordb.model.errors import ErrorCode, JadeError


class Format(StrEnum):
    JSONL = "jsonl"  # a JSON object a line
    CSV = "csv"
    PARQUET = "parquet"
    NPY = "npy"  # one numpy array, a row a vector
    FVECS = "fvecs"  # a row: int32 dimension, then its values: float32,
    BVECS = "bvecs"  # uint8
    IVECS = "ivecs"  # or int32, little endian; the files of the ANN benchmarks


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".npy": Format.NPY,
    ".fvecs": Format.FVECS,
    ".bvecs": Format.BVECS,
    ".ivecs": Format.IVECS,
}
_TEXT = (Format.JSONL, Format.CSV)


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a path holds. compressed: with gzip, text formats only."""

    format: Format
    compressed: bool
    delimiter: str  # between the cells of CSV


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns (CSV, Parquet) or keys (JSON Lines).

    vector_prefix: CSV files without a vector column may have one column a value: v0, v1, v2, ...
    metadata: a column of JSON objects. Where a row or file has none, all other columns are the metadata.
    delimiter: between the cells of CSV; None: a tab for .tsv, else a comma.
    """

    id: str = "id"
    vector: str = "vector"
    metadata: str = "metadata"
    vector_prefix: str = "v"
    delimiter: str | None = None

    def __post_init__(self) -> None:
        names = {self.id, self.vector, self.metadata}
        if len(names) < 3 or "" in names:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"The columns of id, vector and metadata need three different names, got {self.id!r}, {self.vector!r} and "
                f"{self.metadata!r}.",
            )


def kind_of(path: Path, format: Format | str | None, columns: Columns) -> FileKind:
    """Raises INVALID_ARGUMENT when the format cannot be told, or the file cannot be of it."""
    compressed = path.suffix.lower() == ".gz"
    suffix = (Path(path.stem) if compressed else path).suffix.lower()
    try:
        kind = _SUFFIXES[suffix] if format is None else Format(str(format).lower())
    except (KeyError, ValueError):
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"The format of {path} is not known{'' if format is None else f' ({format})'}: "
            f"give format= one of {', '.join(Format)}.",
            details={"file": str(path)},
        ) from None
    if compressed and kind not in _TEXT:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{path} cannot be compressed: gzip is read and written for JSON Lines and CSV only. Unpack it first.",
            details={"file": str(path)},
        )
    delimiter = columns.delimiter or ("\t" if suffix == ".tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"The delimiter {delimiter!r} is not allowed: use one character, as ',' or ';'."
        )
    return FileKind(kind, compressed, delimiter)


def ids_path(path: Path) -> Path:
    """The file beside an array file that holds its ids: UTF-8 text, an id a line."""
    return path.with_name(path.name + ".ids")
