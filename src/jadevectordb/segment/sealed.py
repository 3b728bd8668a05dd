"""A sealed segment: a folder of files that never change, mapped into memory, open in milliseconds.

It starts as rows and records only ("" as its index kind: searched exactly) and is later replaced by a segment over the
same units with index, filter columns and text index, built in the background (`segment.builder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from jadevectordb.index.api import Found, SearchOverrides, VectorIndex
from jadevectordb.index.bitmap import RowArray
from jadevectordb.index.columns import ColumnSet, GrowingColumns, Selection, open_columns
from jadevectordb.index.exact import RowBlock
from jadevectordb.index.factory import open_index
from jadevectordb.index.flat import FlatIndex
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.text import GrowingText, TextConfig, TextIndex, TextReader, open_text
from jadevectordb.model.errors import JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.index_parameters import IndexParameters
from jadevectordb.model.operations import Rows
from jadevectordb.model.schema import Schema
from jadevectordb.segment import manifest as manifests
from jadevectordb.segment.manifest import Manifest
from jadevectordb.segment.reader import UNREADABLE, Allowed, range_in
from jadevectordb.segment.records import HashArray, Records, map_array

VECTORS, ORIGINALS = "vectors", "originals"


class MetadataRows(Seq[bytes]):
    """All metadata of a segment as a sequence, read from the mapped file row by row."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        return self._records.row_count

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        if isinstance(row, slice):
            return [self._records.metadata_of(r) for r in range(*row.indices(len(self)))]
        return self._records.metadata_of(row)

    def __iter__(self) -> Iterator[bytes]:
        return map(self._records.metadata_of, range(len(self)))


class SealedSegment:
    """A SegmentReader over one folder. Keeps its files mapped, so that views of it outlive the folder's removal."""

    def __init__(self, directory: Path, space: VectorSpace, schema: Schema, text: TextConfig | None) -> None:
        self.directory = directory
        self.manifest = manifests.read_sealed_bytes(directory / manifests.MANIFEST_NAME, Manifest)
        manifests.check_sizes(directory, self.manifest)
        self.space = space
        self.row_count = self.manifest.row_count
        self.name = directory.name
        self.records = Records(directory, self.row_count)
        shape = (self.row_count, space.row_width)
        self.rows: Rows = map_array(directory / VECTORS, space.row_dtype, shape)
        self.originals = (
            map_array(directory / ORIGINALS, space.row_dtype, shape) if self.manifest.has_originals else self.rows
        )
        self.metadata = MetadataRows(self.records)
        self._block = RowBlock(space, self.rows)
        self.index: VectorIndex = (
            open_index(directory, space, self.rows)
            if self.manifest.index_kind
            else FlatIndex(self._block, "index not built yet")
        )
        self.index_kind = str(self.index.kind) if self.manifest.index_kind else ""
        self.columns: ColumnSet | None = None
        if self.manifest.has_columns:
            self.columns = open_columns(directory, self.row_count, schema)
        self._unindexed_columns = None if self.columns is not None else GrowingColumns(schema)
        built_text = open_text(directory, self.row_count) if self.manifest.has_text else None
        wanted_fields = () if text is None else text.fields
        self._has_wanted_text = (() if built_text is None else built_text.fields) == wanted_fields
        self._text: TextIndex | GrowingText | None = None
        if text is not None:
            # Over other fields than those wanted now it is of no use; until it is built anew, records are read.
            self._text = built_text if built_text is not None and self._has_wanted_text else GrowingText(text)
        self._hash_order = (self.records.hashes, self.records.hash_rows)

    def was_built_as(self, kind: IndexKind, parameters: IndexParameters) -> bool:
        """Whether its index, columns and text index are those of a database configured like this.

        Columns hold the values of every field whatever is declared, but those of text fields: they are as old as the text index.
        """
        made_as = self.manifest.index_kind, self.manifest.index_parameters
        return made_as == (str(kind), parameters) and self._has_wanted_text

    @property
    def units(self) -> tuple[int, int]:
        """First and last unit it covers."""
        return self.manifest.first_unit, self.manifest.last_unit

    @property
    def memory_bytes(self) -> int:
        """Memory beyond the page cache: what the index and the filter cache keep."""
        columns = self.columns if self.columns is not None else self._unindexed_columns
        return self.index.memory_bytes + (0 if columns is None else columns.memory_bytes)

    @property
    def disk_bytes(self) -> int:
        return manifests.total_bytes(self.manifest)

    def search(
        self, query: Rows, k: int, recall: float, allowed: Allowed | None, overrides: SearchOverrides | None
    ) -> Found:
        if allowed is None:
            return self.index.search(query, k, recall=recall, overrides=overrides)
        return self.index.search(
            query,
            k,
            recall=recall,
            allow=allowed.bits,
            allowed_count=allowed.count,
            allowed_rows=allowed.rows,
            overrides=overrides,
        )

    def search_range(
        self, query: Rows, similarity_min: float, allowed: Allowed | None
    ) -> tuple[npt.NDArray[np.float32], RowArray]:
        return range_in(self._block, self.row_count, query, similarity_min, allowed)

    def select(self, node: Filter) -> Selection:
        try:
            if self.columns is not None:
                return self.columns.evaluate(node, self.records.metadata_of)
            assert self._unindexed_columns is not None
            return self._unindexed_columns.evaluate(node, self.metadata, self.row_count)
        except UNREADABLE as error:
            raise self.blame(error) from error

    @property
    def text(self) -> TextReader | None:
        if isinstance(self._text, GrowingText):
            return self._text.reader(self.metadata, self.row_count)
        return self._text

    def id_of(self, row: int) -> str:
        try:
            return self.records.id_of(row)
        except UNREADABLE as error:
            raise self.blame(error) from error

    def ids_of(self, rows: Seq[int]) -> list[str]:
        try:
            return self.records.ids_of(rows)
        except UNREADABLE as error:
            raise self.blame(error) from error

    def version_of(self, row: int) -> int:
        return self.records.version_of(row)

    def metadata_of(self, row: int) -> bytes:
        return self.records.metadata_of(row)

    def vector_of(self, row: int) -> Rows:
        vector: Rows = self.originals[row]
        return vector

    def hash_order(self) -> tuple[HashArray, npt.NDArray[Any]]:
        return self._hash_order

    def find(self, ids: Seq[str], hashes: HashArray) -> dict[int, list[int]]:
        try:
            return self.records.find(ids, hashes)
        except UNREADABLE as error:
            raise self.blame(error) from error

    def cost_us(self, overrides: SearchOverrides, *, has_dead: bool) -> float:
        return self.index.cost_us(overrides, has_dead=has_dead)

    def blame(self, error: Exception) -> Exception:
        try:
            self.verify()
        except JadeError as damage:
            if self.directory.exists():
                return damage
            # Merged away since, and the bits that could not be read with it
            return manifests.corrupt(self.directory, f"held what could not be read ({error})")
        return error

    def verify(self) -> None:
        """Compare every file with its checksum. Raises CORRUPT naming the first that differs."""
        manifests.verify(self.directory, self.manifest)

    def verify_file(self, name: str) -> None:
        """Compare one file with its checksum. Raises CORRUPT naming it."""
        manifests.verify_file(self.directory, self.manifest, name)
