"""The lexical re-ranker's promises, diversity against its definition, configuration kept and used, models by name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.insight_world import SetClock, metadata_at

from jadevectordb.gateway.service.lexical_rerank import NAME, diversified, lexical_scores
from jadevectordb.gateway.service.rerank import Rerank, RerankConfig, analyzer_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.text_models import CrossEncoder

ENGLISH = analyzer_of("english")
PLAIN = analyzer_of("none")
DOCUMENTS = [
    "Machine learning is a field of artificial intelligence",
    "Deep learning with neural networks for machine vision",
    "Cooking pasta with tomato sauce",
    "The machine in the garden",
]


class ByLength:
    """A cross-encoder that is none: the scores of texts are known beforehand."""

    name = "by-length"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, query: str, texts: Sequence[str], batch: int) -> list[float]:
        self.batches.append(batch)
        return [1 / (1 + len(text)) for text in texts]


def test_texts_with_more_of_the_query_score_higher() -> None:
    scores = lexical_scores(ENGLISH, "machine learning", DOCUMENTS)
    assert scores[0] > scores[1] > scores[3] > scores[2] == 0.0
    assert lexical_scores(ENGLISH, "machines learn", DOCUMENTS) == scores  # stems


def test_neighbours_score_higher_than_words_far_apart() -> None:
    near, far = lexical_scores(PLAIN, "red fox", ["a b red fox c d", "red a b c d fox"])
    assert near > far


def test_rare_words_among_the_candidates_count_more() -> None:
    texts = ["common rare", "common other", "common thing", "common stuff", "rare alone"]
    scores = lexical_scores(PLAIN, "common rare", texts)
    assert scores[0] > scores[4] > scores[1]


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="abc de", max_size=30),
    st.lists(st.text(alphabet="abc de\u00e9\ud800", max_size=60), max_size=8),
    st.randoms(use_true_random=False),
)
def test_scores_are_bounded_deterministic_and_do_not_depend_on_the_order(
    query: str, texts: list[str], rng: random.Random
) -> None:
    scores = lexical_scores(PLAIN, query, texts)
    assert all(0.0 <= score <= 1.0 for score in scores)
    order = list(range(len(texts)))
    rng.shuffle(order)
    assert lexical_scores(PLAIN, query, [texts[at] for at in order]) == [scores[at] for at in order]
    words = set(PLAIN.terms(query))
    for text, score in zip(texts, scores, strict=True):
        assert (score > 0) == bool(words & set(PLAIN.terms(text)))


def test_a_query_of_many_words_is_cut_not_refused() -> None:
    query = " ".join(f"word{n}" for n in range(500))
    assert lexical_scores(PLAIN, query, ["word3", "word400"])[0] > 0
    assert lexical_scores(PLAIN, query, ["word3", "word400"])[1] == 0


def _closest_window(text: list[str], wanted: set[str]) -> int:
    spans = [
        end - start
        for start in range(len(text))
        for end in range(start + 1, len(text) + 1)
        if wanted <= set(text[start:end])
    ]
    return min(spans)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcxyz"), min_size=2, max_size=14))
def test_closeness_is_the_narrowest_window(text: list[str]) -> None:
    from jadevectordb.gateway.service.lexical_rerank import _closeness, _read

    wanted = {"a", "b", "c"} & set(text)
    if len(wanted) >= 2:
        document = _read(PLAIN, " ".join(text), frozenset("abc"))
        assert _closeness(document) == len(wanted) / _closest_window(text, wanted)


def _marginal(scores: list[float], texts: list[str], diversity: float) -> list[int]:
    """Maximal marginal relevance as its definition reads."""
    words = [set(text.split()) for text in texts]
    left, chosen = sorted(range(len(texts)), key=lambda at: -scores[at]), []  # type: ignore[var-annotated]
    while left:
        worth = {}
        for at in left:
            alike = max((len(words[at] & words[c]) / len(words[at] | words[c]) for c in chosen), default=0.0)
            worth[at] = (1 - diversity) * scores[at] - diversity * alike
        chosen.append(max(left, key=worth.__getitem__))
        left.remove(chosen[-1])
    return chosen


def test_diversity_is_maximal_marginal_relevance() -> None:
    rng = random.Random(3)
    for _ in range(30):
        texts = [" ".join(rng.choices("abcdefgh", k=5)) for _ in range(8)]
        scores = [rng.random() for _ in texts]
        diversity = rng.random()
        assert diversified(PLAIN, scores, texts, diversity, 5) == _marginal(scores, texts, diversity)[:5]
    assert diversified(PLAIN, [0.1, 0.9, 0.5], ["a", "a", "a"], 0.0, 3) == [1, 2, 0]


def _rerank(folder: Path, **encoders: CrossEncoder) -> Rerank:
    return Rerank(metadata_at(folder), {e.name: (lambda e=e: e) for e in encoders.values()}, SetClock())  # type: ignore[misc]


def test_models_are_named_and_never_substituted(tmp_path: Path) -> None:
    encoder = ByLength()
    rerank = _rerank(tmp_path, encoder=encoder)
    assert rerank.models == [NAME, "by-length"]
    lexical = rerank.rerank("machine learning", DOCUMENTS, k=2)
    assert (lexical.model, [r.position for r in lexical.ranked]) == (NAME, [0, 1])
    other = rerank.rerank("machine learning", DOCUMENTS, model="by-length", batch_size=7)
    assert other.model == "by-length"
    assert [r.position for r in other.ranked] == [3, 2, 1, 0]
    assert encoder.batches == [7]
    with pytest.raises(JadeError) as caught:
        rerank.rerank("x", DOCUMENTS, model="cross-encoder/ms-marco-MiniLM-L-6-v2")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert caught.value.details["available"] == [NAME, "by-length"]
    assert "by-length" in caught.value.message
    rerank.close()


def test_configuration_is_kept_used_and_counted(tmp_path: Path) -> None:
    rerank = _rerank(tmp_path, encoder=ByLength())
    assert rerank.config("db_1") == RerankConfig()
    rerank.configure("db_1", {"model": "by-length", "rerank_weight": 0.25})
    kept = rerank.configure("db_1", {"batch_size": 8, "combine_scores": False, "score_threshold": 0.1})
    again = _rerank(tmp_path, encoder=ByLength())
    assert again.config("db_1") == kept
    assert (kept.model, kept.batch_size, kept.rerank_weight, kept.combine_scores) == ("by-length", 8, 0.25, False)
    wrong: list[dict[str, object]] = [{}, {"batch_size": 0}, {"rerank_weight": 1.1}, {"model": "nope"}]
    for changes in (*wrong, {"score_threshold": float("nan")}):
        with pytest.raises(JadeError) as caught:
            again.configure("db_1", changes)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert again.config("db_1") == kept
    again.rerank("a", ["a", "b"], database="db_1")
    again.rerank("a", ["a", "b", "c"], database="db_1")
    with pytest.raises(JadeError):
        again.rerank("a", ["a"], model="nope", database="db_1")
    with pytest.raises(JadeError) as caught:
        again.rerank("a", ["a"] * 1001, database="db_1")
    assert caught.value.code is ErrorCode.REQUEST_TOO_LARGE
    statistics = again.statistics("db_1")
    assert (statistics.requests, statistics.failed, statistics.documents) == (4, 2, 5)
    again.forget("db_1")
    assert again.config("db_1") == RerankConfig()
    assert _rerank(tmp_path).config("db_1") == RerankConfig()
