"""The real data of the demo: WordNet definitions with sentence vectors, held-out queries and the exact truth for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import jadevectordb as jade

FOLDER_IN_CHECKOUT = Path("data") / "wordnet"
_VECTORS, _GLOSSES = "wordnet_vectors.f16.npy", "wordnet_glosses.jsonl"
_QUERIES, _QUERY_GLOSSES, _TRUTH = "wordnet_queries.f16.npy", "wordnet_queries.jsonl", "wordnet_top10.i32.npy"


@dataclass(frozen=True, slots=True)
class WordNet:
    """ids: n names. vectors: float32 (n, 384). metadata: n dicts with words, gloss, pos, topic, gloss_length.

    queries: float32 (m, 384), none of them among the vectors. query_metadata: m dicts.
    truth: int32 (m, 10), the rows nearest to each query by cosine, found by comparing with every vector.
    """

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    metadata: list[dict[str, Any]]
    queries: npt.NDArray[np.float32]
    query_metadata: list[dict[str, Any]]
    truth: npt.NDArray[np.int32]

    def query(self, words: str) -> int:
        """Position of the held-out definition of `words`."""
        return next(i for i, m in enumerate(self.query_metadata) if m["words"] == words)


def load(folder: Path | None) -> WordNet:
    """Read everything. folder: None looks beside the source code, then below the current folder. Raises NOT_FOUND, CORRUPT."""
    place = _find(folder)
    try:
        metadata = _lines(place / _GLOSSES)
        data = WordNet(
            [m.pop("id") for m in metadata],
            load_vectors(place),
            metadata,
            np.load(place / _QUERIES).astype(np.float32),
            _lines(place / _QUERY_GLOSSES),
            np.load(place / _TRUTH),
        )
    except FileNotFoundError as error:
        raise jade.JadeError(
            jade.ErrorCode.NOT_FOUND,
            f"{error.filename} is missing: take the whole folder {FOLDER_IN_CHECKOUT} of the project.",
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise jade.JadeError(
            jade.ErrorCode.CORRUPT, f"The data in {place} can't be read ({error}): take it anew from the project."
        ) from error
    n, m = len(data.ids), len(data.query_metadata)
    if data.vectors.shape != (n, 384) or data.queries.shape != (m, 384) or data.truth.shape != (m, 10):
        raise jade.JadeError(
            jade.ErrorCode.CORRUPT, f"The files in {place} don't belong together: take them anew from the project."
        )
    return data


def load_vectors(folder: Path) -> npt.NDArray[np.float32]:
    """(n, 384)."""
    vectors: npt.NDArray[np.float32] = np.load(folder / _VECTORS).astype(np.float32)
    return vectors


def _find(folder: Path | None) -> Path:
    beside = Path(__file__).resolve().parents[3] / FOLDER_IN_CHECKOUT
    places = [folder] if folder is not None else [beside, Path.cwd() / FOLDER_IN_CHECKOUT]
    for place in places:
        if (place / _VECTORS).is_file():
            return place
    looked = " or ".join(str(place) for place in dict.fromkeys(places))
    raise jade.JadeError(
        jade.ErrorCode.NOT_FOUND,
        f"The demo's data ({_VECTORS} and others) is not in {looked}: it comes with the project's sources. "
        f"Run the demo in a checkout, or say where the data is with --data FOLDER.",
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
