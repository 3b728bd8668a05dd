"""One replica of one shard on disk: the state machine of `apply`, its segment folders and its checkpoint.

    apply        entries change the state in memory; the log makes them durable
    write_frozen a frozen growing segment becomes a folder, then a checkpoint says so: the log before it is dispensable
    next_job     where the folders differ from the plan, what to build (index, columns, text, merged, dead rows dropped)
    install      a built folder takes the place of its sources, rows that died meanwhile stay dead

Two states are kept side by side: now, and as of the checkpoint. A merge may only drop rows that were dead at the checkpoint,
because replaying the log from there must find every row that an entry after it looked at.

Threads: `apply` and everything that changes the state run under `lock`, which is held for microseconds to milliseconds;
`maintenance` serialises writing folders and checkpoints. Readers use published views and take no lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import xxhash

from jadevectordb.index import bitmap
from jadevectordb.model.errors import JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.index_parameters import IndexParameters, building
from jadevectordb.model.operations import Entry, Outcome
from jadevectordb.segment import builder
from jadevectordb.segment import manifest as manifests
from jadevectordb.segment.builder import BuildJob
from jadevectordb.segment.growing import GrowingView
from jadevectordb.segment.reader import SegmentReader
from jadevectordb.segment.sealed import SealedSegment
from jadevectordb.shard import checkpoint as checkpoints
from jadevectordb.shard.apply import Frozen, ShardConfig, ShardState
from jadevectordb.shard.checkpoint import Checkpoint
from jadevectordb.shard.conflicts import ConflictReport
from jadevectordb.shard.layout import Span
from jadevectordb.shard.view import Part, ShardView

WriteAtomically: TypeAlias = Callable[[Path, bytes], None]
BUILD_SEED = 20_211


@dataclass(frozen=True, slots=True)
class PlannedBuild:
    """A span whose folders should become one. sources: its parts as of the checkpoint."""

    span: Span
    sources: tuple[Part, ...]

    @property
    def rows(self) -> int:
        return sum(part.live for part in self.sources)


class Replica:
    """directory: created when missing. write_atomically: replaces a file so that a crash leaves the old or the new one."""

    def __init__(
        self,
        shard: ShardId,
        directory: Path,
        config: ShardConfig,
        index_kind: IndexKind,
        write_atomically: WriteAtomically,
        index_parameters: IndexParameters | None = None,
    ) -> None:
        self.shard = shard
        self.directory = directory
        self.config = config
        self.lock = threading.Lock()
        self.maintenance = threading.Lock()
        self._index_kind = index_kind
        self._index_parameters = building(index_parameters or {})
        self._write_atomically = write_atomically
        directory.mkdir(parents=True, exist_ok=True)
        found = checkpoints.read_checkpoint(directory)
        self._generation = found.generation
        parts = [checkpoints.part_of(self._open(entry.name), entry) for entry in found.segments]
        self.checkpoint_parts = tuple(parts)  # as of the checkpoint; the same readers as in the state, rows alive then
        self.checkpoint_spans = tuple(found.spans)
        self.checkpoint = found
        self.state = state_of(config, found, parts)
        self.view: ShardView = self.state.view()

    def _open(self, name: str) -> SealedSegment:
        return SealedSegment(self.directory / name, self.config.space, self.config.schema, self.config.text)

    def remove_orphans(self) -> None:
        """Remove folders that no checkpoint names: written before a crash, never part of the shard.

        To be called once the log has continued the checkpoint: should the checkpoint be lost, its folders are not orphans.
        """
        known = {part.reader.name for part in self.checkpoint_parts}
        for path in self.directory.iterdir():
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    # Applying

    def apply(self, sequence: Sequence, entry: Entry) -> Outcome:
        """Apply one entry and make it visible in `view`. Called in log order by one thread at a time."""
        with self.lock:
            outcome = self.state.apply(sequence, entry)
            self.view = self.state.view()
        return outcome

    @property
    def is_settled(self) -> bool:
        """Whether every row is frozen and the plan is one for a loaded database."""
        with self.lock:
            return self.state.is_settled

    @property
    def unwritten_bytes(self) -> int:
        """Memory held by frozen rows that are not in a folder yet."""
        return sum(f.view.segment.bytes_in_memory for f in list(self.state.frozen) if f.view is not None)

    # From memory to disk

    def write_frozen(self) -> bool:
        """Write the oldest frozen segment and a checkpoint after it; False when there is none."""
        with self.maintenance:
            if not self.state.frozen:
                return False
            frozen = self.state.frozen[0]
            # A folder written before a checkpoint failed is kept and used: on a full disk, writing it again would fill more.
            if frozen.view is not None and isinstance(frozen.parts[-1].reader, GrowingView):
                directory = self._new_directory(frozen.unit, frozen.unit)
                try:
                    builder.write_rows(directory, frozen.view, frozen.unit)
                    written = self._open(directory.name)
                except BaseException:
                    shutil.rmtree(directory, ignore_errors=True)
                    raise
                self._replace((frozen.unit, frozen.unit), written, None)
                frozen = self.state.frozen[0]  # with the folder in place of the rows in memory
            self._write_checkpoint(frozen)
            with self.lock:
                self.state.frozen.popleft()
            return True

    def _new_directory(self, first: int, last: int) -> Path:
        self._generation += 1
        return self.directory / f"{first:08}-{last:08}-{self._generation:06}-{os.getpid():x}"

    def _write_checkpoint(self, frozen: Frozen) -> None:
        next_unit = frozen.unit + (frozen.view is not None)
        self._store(
            Checkpoint(
                manifests.FORMAT_VERSION,
                frozen.sequence,
                next_unit,
                self._generation,
                [checkpoints.entry_of(part) for part in frozen.parts],
                list(frozen.spans),
                list(frozen.requests),
                frozen.newest_time,
                frozen.causal,
            ),
            frozen.parts,
        )

    def _store(self, checkpoint: Checkpoint, parts: tuple[Part, ...]) -> None:
        self._write_atomically(self.directory / checkpoints.CHECKPOINT_NAME, manifests.seal_bytes(checkpoint))
        with self.lock:
            self.checkpoint = checkpoint
            self.checkpoint_parts = parts
            self.checkpoint_spans = tuple(checkpoint.spans)

    # Towards the plan

    def planned_builds(self) -> list[PlannedBuild]:
        """Spans of the plan, as of the checkpoint, that are not one segment with the wanted index yet; newest first."""
        with self.lock:
            parts, spans = self.checkpoint_parts, self.checkpoint_spans
        builds = []
        for span in reversed(spans):
            inside = tuple(p for p in parts if span.first <= p.reader.units[0] <= span.last)
            settled = (
                len(inside) == 1 and self._is_as_wanted(_folder(inside[0])) and inside[0].reader.row_count <= span.rows
            )
            if inside and not settled:
                builds.append(PlannedBuild(span, inside))
        return builds

    def _is_as_wanted(self, segment: SealedSegment) -> bool:
        return segment.was_built_as(self._index_kind, self._index_parameters)

    def job_of(self, build: PlannedBuild, threads: int) -> BuildJob:
        sources = [_folder(part) for part in build.sources]
        return BuildJob(
            target=str(self._new_directory(sources[0].units[0], sources[-1].units[1])),
            sources=[str(s.directory) for s in sources],
            alive=[None if part.alive is None else part.alive.tobytes() for part in build.sources],
            metric=self.config.space.metric,
            dimension=self.config.space.dimension,
            index_kind=self._index_kind,
            index_parameters=self._index_parameters,
            schema=self.config.schema,
            text=self.config.text,
            threads=threads,
            seed=BUILD_SEED,
        )

    def install(self, build: PlannedBuild, target: Path | None) -> None:
        """Put the built folder (None: nothing of the span was alive) in place of its sources, here and in the checkpoint."""
        units = build.sources[0].reader.units[0], build.sources[-1].reader.units[1]
        with self.maintenance:
            try:
                new = None if target is None else self._open(target.name)
                # The checkpoint first: should the disk refuse it, everything stays as it was.
                parts = tuple(_swapped(self.checkpoint_parts, units, new, build.sources))
                segments = [checkpoints.entry_of(part) for part in parts]
                self._store(
                    msgspec.structs.replace(self.checkpoint, generation=self._generation, segments=segments), parts
                )
            except BaseException:
                if target is not None:
                    self._discard(target)
                raise
            self._replace(units, new, build.sources)
            for source in build.sources:
                shutil.rmtree(_folder(source).directory, ignore_errors=True)

    def _discard(self, folder: Path) -> None:
        """Remove a folder that could not be installed, unless the checkpoint that failed reached the disk and names it."""
        with contextlib.suppress(JadeError):
            if folder.name not in {entry.name for entry in checkpoints.read_checkpoint(self.directory).segments}:
                shutil.rmtree(folder, ignore_errors=True)

    def _replace(self, units: tuple[int, int], new: SegmentReader | None, sources: Seq[Part] | None) -> None:
        """Swap the parts that cover these units, in the state now and in frozen states."""
        with self.lock:
            self.state.parts = _swapped(self.state.parts, units, new, sources)
            for i, frozen in enumerate(self.state.frozen):
                parts = tuple(_swapped(frozen.parts, units, new, sources))
                self.state.frozen[i] = dataclasses.replace(frozen, parts=parts)
            self.view = self.state.view()

    # Truth

    def conflicts(self) -> ConflictReport:
        """What became of writes at EVENTUAL that did not know of each other."""
        with self.lock:
            return self.state.causality.report()

    def verify(self) -> None:
        """Compare every file of every segment with its checksum. Raises CORRUPT naming the first that differs."""
        for part in self.checkpoint_parts:
            _folder(part).verify()

    def digest(self) -> str:
        """A fingerprint of the logical state: equal for replicas that applied the same entries, however their segments lie."""
        with self.lock:
            return digest_of(self.state)


def state_of(config: ShardConfig, found: Checkpoint, parts: Seq[Part]) -> ShardState:
    """The state a checkpoint stands for. parts: its segments, opened."""
    return ShardState(
        config,
        parts=parts,
        spans=found.spans,
        next_unit=found.next_unit,
        applied=checkpoints.sequence_of(found),
        requests=found.requests,
        newest_time=found.newest_time,
        causal=found.causal,
    )


def digest_of(state: ShardState) -> str:
    """As `Replica.digest`, of a state that nobody changes meanwhile."""
    view, requests = state.view(), list(state.requests.items())
    live = []
    for part in view.parts:
        rows = range(part.reader.row_count) if part.alive is None else bitmap.to_rows(part.alive).tolist()
        live += [(part.reader.id_of(row), part.reader, row) for row in rows]
    live.sort(key=lambda item: item[0])
    digest = xxhash.xxh3_128()
    digest.update(msgspec.msgpack.encode([view.watermark, state.next_unit, state.spans, requests]))
    if (causal := state.causality.saved()) is not None:
        digest.update(msgspec.msgpack.encode(causal))
    for vector_id, reader, row in live:
        digest.update(msgspec.msgpack.encode([vector_id, reader.version_of(row), reader.metadata_of(row)]))
        digest.update(np.ascontiguousarray(reader.vector_of(row)).tobytes())
    return digest.hexdigest()


def _folder(part: Part) -> SealedSegment:
    assert isinstance(part.reader, SealedSegment), "parts of a checkpoint are folders"
    return part.reader


def _swapped(
    parts: Seq[Part], units: tuple[int, int], new: SegmentReader | None, sources: Seq[Part] | None
) -> list[Part]:
    """The parts with one over the new segment (None: none) in place of those that cover these units."""
    start = next((i for i, p in enumerate(parts) if p.reader.units[0] >= units[0]), len(parts))
    end = next((i for i, p in enumerate(parts) if p.reader.units[0] > units[1]), len(parts))
    if start == end:
        return list(parts)
    merged = [] if new is None else [_moved(parts[start:end], new, sources)]
    return [*parts[:start], *merged, *parts[end:]]


def _moved(old: Seq[Part], new: SegmentReader, sources: Seq[Part] | None) -> Part:
    """The part over the new segment, with the rows dead that are dead in the old ones.

    sources: what the new segment was built from, when dead rows were left out; None when rows kept their numbers.
    """
    if sources is None:
        (part,) = old
        return Part(new, part.alive, part.live)
    assert [p.reader.units for p in old] == [s.reader.units for s in sources]
    if all(p.alive is s.alive for p, s in zip(old, sources, strict=True)):
        return Part(new, None, new.row_count)
    still = []
    for part, source in zip(old, sources, strict=True):
        kept = np.arange(source.reader.row_count) if source.alive is None else bitmap.to_rows(source.alive)
        still.append(np.ones(len(kept), np.bool_) if part.alive is None else bitmap.contains(part.alive, kept))
    mask = np.concatenate(still)
    live = int(np.count_nonzero(mask))
    return Part(new, None if live == len(mask) else bitmap.from_mask(mask), live)
