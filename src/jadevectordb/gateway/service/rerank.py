"""Re-ranking: a second, closer look at the few best texts of a search, or at texts a caller brings along.

Which model looks is said by name, in the configuration of a database or by the caller, and the answer names the model that
did. There is always the built-in lexical one; cross-encoders are there when their folders are configured. No other model
ever stands in for one that is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from functools import lru_cache
from typing import Any

import msgspec

from jadevectordb.gateway.service import lexical_rerank
from jadevectordb.gateway.service.records import Records
from jadevectordb.index.text import Analyzer, TextConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import RERANK_BATCH_MAX, RERANK_DOCUMENTS_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.ports.text_models import CrossEncoder

_PREFIX = "rerank/"
DEFAULT_LANGUAGE = "english"


class RerankConfig(msgspec.Struct, frozen=True, kw_only=True):
    """score_threshold: results whose re-ranking score is lower are dropped. rerank_weight: its share when scores are combined."""

    model: str = lexical_rerank.NAME
    batch_size: int = 32
    score_threshold: float = 0.0
    combine_scores: bool = True
    rerank_weight: float = 0.7


class RerankStats(msgspec.Struct):
    """Since the server started."""

    requests: int = 0
    failed: int = 0
    latency_sum_ms: float = 0.0
    documents: int = 0

    @property
    def latency_avg_ms(self) -> float:
        done = self.requests - self.failed
        return self.latency_sum_ms / done if done else 0.0


class Reranked(msgspec.Struct, frozen=True):
    """position: in the list that was given. score: 0 to 1."""

    position: int
    score: float


class RerankResult(msgspec.Struct, frozen=True):
    """ranked: best first (or in the order of diversity). model: that looked. latency_ms: what it took."""

    ranked: list[Reranked]
    model: str
    latency_ms: float


class Rerank:
    """Thread-safe. cross_encoders: those configured, by name, each with what loads it at its first use.

    is_shared: other nodes change configurations in this metadata store too.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        cross_encoders: Mapping[str, Callable[[], CrossEncoder]],
        clock: Clock,
        *,
        is_shared: bool = False,
    ) -> None:
        self._configs: Records[RerankConfig] = Records(metadata, _PREFIX, RerankConfig, is_shared=is_shared)
        self._clock = clock
        self._loaders = dict(cross_encoders)
        self._loaded: dict[str, CrossEncoder] = {}
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._stats: dict[str, RerankStats] = {}

    @property
    def models(self) -> list[str]:
        """Names; a caller who names none gets the first."""
        return [lexical_rerank.NAME, *self._loaders]

    def model_named(self, name: str | None) -> str:
        """The name of a model there is; None and "default" mean the first. Raises INVALID_ARGUMENT listing what exists."""
        if name is None or name == "default":
            return lexical_rerank.NAME
        if name not in self.models:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"There is no re-ranking model {name!r:.200} here: available are {', '.join(self.models)}. A cross-encoder becomes "
                "available when its folder with model.onnx and tokenizer.json is configured.",
                details={"available": self.models},
            )
        return name

    # Configuration of a database

    def config(self, database: str) -> RerankConfig:
        return self._configs.get(database) or RerankConfig()

    def configure(self, database: str, changes: Mapping[str, Any]) -> RerankConfig:
        """Change some of it (fields of RerankConfig); in force at once and kept. Raises INVALID_ARGUMENT."""
        if not changes:
            raise _invalid("Give at least one of modelName, batchSize, scoreThreshold, combineScores, rerankWeight.")
        with self._lock:
            config = msgspec.structs.replace(self.config(database), **changes)
            self.model_named(config.model)
            if not 1 <= config.batch_size <= RERANK_BATCH_MAX:
                raise _invalid(f"batchSize must be 1 to {RERANK_BATCH_MAX}, got {config.batch_size}.")
            if not 0.0 <= config.rerank_weight <= 1.0:
                raise _invalid(f"rerankWeight must be 0 to 1, got {config.rerank_weight}.")
            if not -1e9 <= config.score_threshold <= 1e9:
                raise _invalid(f"scoreThreshold must be a finite number, got {config.score_threshold}.")
            config = msgspec.structs.replace(config, model=self.model_named(config.model))
            if not self._configs.put(database, config):
                raise JadeError(
                    ErrorCode.CONFLICT, "The re-ranking configuration was changed at this moment: try again."
                )
            return config

    def statistics(self, database: str) -> RerankStats:
        with self._lock:
            found = self._stats.get(database)
            return RerankStats() if found is None else msgspec.structs.replace(found)

    def forget(self, database: str) -> None:
        """A database was dropped."""
        with self._lock:
            self._stats.pop(database, None)
        self._configs.remove(database)

    # Re-ranking

    def rerank(
        self,
        query: str,
        texts: Seq[str],
        *,
        model: str | None = None,
        k: int | None = None,
        batch_size: int = 32,
        diversity: float = 0.0,
        language: str = DEFAULT_LANGUAGE,
        database: str = "",
    ) -> RerankResult:
        """Score texts for a query and order them. database: whose statistics this counts in, "" for none.

        diversity: 0 to 1, see `lexical_rerank.diversified`. Raises INVALID_ARGUMENT, REQUEST_TOO_LARGE.
        """
        started = self._clock.monotonic_s()
        try:
            name = self.model_named(model)
            if len(texts) > RERANK_DOCUMENTS_MAX:
                raise JadeError(
                    ErrorCode.REQUEST_TOO_LARGE,
                    f"{len(texts)} documents are too many for one re-ranking: send at most {RERANK_DOCUMENTS_MAX}.",
                )
            if not 0.0 <= diversity <= 1.0:
                raise _invalid(f"diversity must be 0 to 1, got {diversity}.")
            encoder, analyzer = self._encoder(name), analyzer_of(language)
            scores = (
                lexical_rerank.lexical_scores(analyzer, query, texts)
                if encoder is None
                else encoder.score(query, texts, batch_size)
            )
            wanted = len(texts) if k is None else min(k, len(texts))
            if diversity:
                order = lexical_rerank.diversified(analyzer, scores, texts, diversity, wanted)
            else:
                order = sorted(range(len(texts)), key=lambda at: (-scores[at], at))[:wanted]
        except JadeError:
            self._note(database, started, 0, failed=True)
            raise
        latency_ms = self._note(database, started, len(texts), failed=False)
        return RerankResult([Reranked(at, scores[at]) for at in order], name, latency_ms)

    def _encoder(self, name: str) -> CrossEncoder | None:
        if name == lexical_rerank.NAME:
            return None
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._loaders[name]()
            return self._loaded[name]

    def _note(self, database: str, started_s: float, documents: int, *, failed: bool) -> float:
        latency_ms = (self._clock.monotonic_s() - started_s) * 1000
        if database:
            with self._lock:
                stats = self._stats.setdefault(database, RerankStats())
                stats.requests += 1
                stats.failed += failed
                stats.documents += documents
                if not failed:
                    stats.latency_sum_ms += latency_ms
        return latency_ms

    def close(self) -> None:
        """Models hold memory only."""
        self._loaded.clear()


@lru_cache(maxsize=32)  # one a language
def analyzer_of(language: str) -> Analyzer:
    return Analyzer(TextConfig(("text",), language))


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
