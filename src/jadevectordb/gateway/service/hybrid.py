"""Searching by vector and by words at once, with the parts of every score known: what each ranking said of each result.

Both rankings are taken from one moment, to a depth of at least FUSION_DEPTH_MIN, and fused (`query/fusion.py`):
    rrf      sum over the rankings of 1 / (k + place), places from 1
    linear   alpha * vector + (1 - alpha) * words, each scaled to 0..1 by the least and greatest score of its ranking
The vector score and the BM25 score of a result are exact, also where one ranking did not reach down to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.hits import Hit, Item, Unpacker
from jadevectordb.gateway.service.cluster_hybrid import ClusterHybrid
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.gateway.service.rerank import analyzer_of
from jadevectordb.gateway.service.text_ranking import Place, TextHit, TextRanking
from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.limits import FUSION_DEPTH_MIN, K_MAX
from jadevectordb.model.operations import Rows
from jadevectordb.query import executor
from jadevectordb.query.fusion import RRF_K, reciprocal_rank_fusion, weighted_fusion
from jadevectordb.query.plan import Match, SearchRequest

_PLAINLY: Mapping[str, Any] = {}
LINEAR = "linear"
RRF = "rrf"
FUSIONS = {
    "rrf": RRF,
    "linear": LINEAR,
    "weighted": LINEAR,
    "weighted_linear": LINEAR,
}  # names clients use -> what is done


@dataclass(frozen=True, slots=True)
class HybridHit:
    """score: of the fusion. vector_score: None without a query vector, or for a text without a vector. item: None for such a text."""

    id: str
    score: float
    vector_score: float | None
    bm25_score: float
    item: Item | None


def hybrid_search(
    database: AnyDatabase,
    documents: AnyDatabase | None,
    *,
    vector: npt.ArrayLike | None,
    text: str | None,
    k: int,
    node: Filter | None = None,
    fusion: str = RRF,
    alpha: float = 0.7,
    rrf_k: int = RRF_K,
    recall: float = 0.95,
    reading: Mapping[str, Any] = _PLAINLY,
) -> list[HybridHit]:
    """The k best, best first, equal scores by id. documents: the database of texts without vectors, when there is one.

    vector or text may be None: then the other ranking decides alone. reading: of a cluster's database, from `sessions`.
    Raises INVALID_ARGUMENT and what searching raises.
    """
    _check(vector, text, fusion, alpha, rrf_k)
    depth = min(max(k, FUSION_DEPTH_MIN), K_MAX)
    if isinstance(database, ClusterDatabase):
        assert documents is None or isinstance(documents, ClusterDatabase)
        if text is None:
            hits = database.search(vector, k=k, filter=node, recall=recall, **reading)
            return _of_vectors(hits, fusion, rrf_k)
        search = ClusterHybrid(database, documents, vector, text, node, recall, database.wanted(**reading))
        return _of_cluster(search, depth, k, fusion, alpha, rrf_k)
    assert documents is None or isinstance(documents, Database)
    opened = database._now()
    view, space = opened.view, opened.space
    query = None if vector is None else space.prepare_query(vector)
    by_vector: list[Match] = []
    if query is not None:
        by_vector = executor.search(view, SearchRequest(query, depth, recall, node, opened.overrides), None, None)
    ranking: TextRanking | None = None
    by_text: list[TextHit] = []
    if text is not None:
        texts_view = None if documents is None else documents._use().view
        analyzer = analyzer_of(opened.config.text_language)
        ranking = TextRanking(text, analyzer, view, texts_view, opened.config.schema)
        by_text = ranking.best(depth, node)
    # Public scores, which clients can check: internal similarities of euclidean distance are on another scale
    vector_list = [(m[1], space.public_score(m[0])) for m in by_vector]
    text_list = [(hit.id, hit.score) for hit in by_text]
    fused = _fused(vector_list, text_list, fusion, alpha, rrf_k)
    places: dict[str, Place | None] = {hit.id: hit.where for hit in by_text}
    places |= {m[1]: (m[2], m[3]) for m in by_vector}
    return _complete(fused[:k], places, query, space, dict(vector_list), dict(text_list), ranking, opened.unpacker)


def _fused(
    vector_list: list[tuple[str, float]], text_list: list[tuple[str, float]], fusion: str, alpha: float, rrf_k: int
) -> list[tuple[str, float]]:
    if fusion == RRF:
        return reciprocal_rank_fusion([vector_list, text_list], rrf_k)
    return weighted_fusion(vector_list, text_list, alpha)


def _of_cluster(search: ClusterHybrid, depth: int, k: int, fusion: str, alpha: float, rrf_k: int) -> list[HybridHit]:
    ranked = search.rank(depth)
    fused = _fused(ranked.by_vector, ranked.by_text, fusion, alpha, rrf_k)[:k]
    by_vector, by_text = dict(ranked.by_vector), dict(ranked.by_text)
    without_vector = [name for name, _ in fused if search.vector is not None and name not in by_vector]
    vector_scores, text_scores = search.scores_of(without_vector, [name for name, _ in fused if name not in by_text])
    return [
        HybridHit(
            id=name,
            score=score,
            vector_score=by_vector.get(name, vector_scores.get(name)),
            bm25_score=by_text.get(name, text_scores.get(name, 0.0)),
            item=ranked.items.get(name),
        )
        for name, score in fused
    ]


def _of_vectors(hits: list[Hit], fusion: str, rrf_k: int) -> list[HybridHit]:
    """A ranking by vectors alone, scored as if it had been fused with an empty one."""
    scored = [(hit.id, hit.score) for hit in hits]
    by_id = {hit.id: hit for hit in hits}
    fused = reciprocal_rank_fusion([scored, []], rrf_k) if fusion == RRF else weighted_fusion(scored, [], 1.0)
    return [HybridHit(name, score, by_id[name].score, 0.0, by_id[name]) for name, score in fused]


def _check(vector: npt.ArrayLike | None, text: str | None, fusion: str, alpha: float, rrf_k: int) -> None:
    if vector is None and text is None:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, "A hybrid search needs a queryVector, a queryText, or both.")
    if fusion not in (RRF, LINEAR):
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"Unknown fusion {fusion!r:.60}: use rrf or linear.")
    if not 0.0 <= alpha <= 1.0:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"alpha must be 0 to 1 (the vector's share), got {alpha}.")
    if rrf_k < 0:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"k of reciprocal rank fusion must be 0 or greater, got {rrf_k}.")


def _complete(
    fused: list[tuple[str, float]],
    places: dict[str, Place | None],
    query: Rows | None,
    space: VectorSpace,
    vector_scores: dict[str, float],
    text_scores: dict[str, float],
    ranking: TextRanking | None,
    unpacker: Unpacker,
) -> list[HybridHit]:
    """Results with both their scores; those one ranking did not have are worked out now."""
    names = [name for name, _ in fused]
    if query is not None:
        unscored = [(name, *place) for name in names if name not in vector_scores and (place := places[name])]
        for name, similarity in executor.similarities_at(query, unscored).items():
            vector_scores[name] = space.public_score(similarity)
    if ranking is not None:
        missing = [name for name in names if name not in text_scores]
        text_scores |= zip(missing, ranking.scores_of(missing, [places[name] for name in missing]), strict=True)
    hits = []
    for name, score in fused:
        place = places[name]
        hits.append(
            HybridHit(
                id=name,
                score=score,
                vector_score=vector_scores.get(name),
                bm25_score=text_scores.get(name, 0.0),
                item=None if place is None else Item(name, place[0], place[1], unpacker),
            )
        )
    return hits
