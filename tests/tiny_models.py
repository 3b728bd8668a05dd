"""Models small enough to write down: ONNX files made byte by byte, and tokenizers made by their library.

An ONNX file is a protobuf message; the few fields used here are named beside their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_INT64, _FLOAT = 7, 1
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "dog", "kitten", "stock", "market", "a", "the"]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):  # name=1, i=3, type=20 (INT=2)
        return _bytes(5, _bytes(1, name) + _int(3, value) + _int(20, 2))
    return _bytes(5, _bytes(1, name) + b"".join(_int(8, one) for one in value) + _int(20, 7))  # ints=8, INTS=7


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    # graph.node=1; node.input=1, output=2, op_type=4, attribute=5
    body = b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, kind)
    return _bytes(1, body + b"".join(_attribute(name, value) for name, value in attributes.items()))


def _tensor(name: str, values: np.ndarray) -> bytes:
    # graph.initializer=5; tensor.dims=1, data_type=2, name=8, raw_data=9
    dims = b"".join(_int(1, size) for size in values.shape)
    return _bytes(5, dims + _int(2, _FLOAT) + _bytes(8, name) + _bytes(9, values.astype("<f4").tobytes()))


def _value(field: int, name: str, kind: int, shape: Sequence[str | int]) -> bytes:
    # value_info.name=1, type=2; type.tensor_type=1; tensor.elem_type=1, shape=2; shape.dim=1; dim.dim_value=1, dim_param=2
    dims = b"".join(_bytes(1, _int(1, d) if isinstance(d, int) else _bytes(2, d)) for d in shape)
    return _bytes(field, _bytes(1, name) + _bytes(2, _bytes(1, _int(1, kind) + _bytes(2, dims))))


def _model(graph: bytes) -> bytes:
    # model.ir_version=1, graph=7, opset_import=8; opset.version=2
    return _int(1, 8) + _bytes(7, graph) + _bytes(8, _int(2, 13))


def _inputs(names: Sequence[str]) -> bytes:
    return b"".join(_value(11, name, _INT64, ("batch", "length")) for name in names)


def embedding_model(table: np.ndarray) -> bytes:
    """(batch, length) token ids -> (batch, length, dimension): a row of the table for each token."""
    graph = (
        _node("Gather", ["table", "input_ids"], "last_hidden_state") + _bytes(2, "embedding") + _tensor("table", table)
    )
    graph += _inputs(["input_ids", "attention_mask"])
    # an input that nothing reads would be dropped by the runtime: the mask is read by a node whose output is an output too
    graph += _node("Identity", ["attention_mask"], "mask_out")
    graph += _value(12, "last_hidden_state", _FLOAT, ("batch", "length", table.shape[1]))
    return _model(graph + _value(12, "mask_out", _INT64, ("batch", "length")))


def pair_model(table: np.ndarray) -> bytes:
    """(batch, length) token ids -> (batch, outputs): the sum of the rows of the tokens."""
    graph = _node("Gather", ["table", "input_ids"], "rows")
    graph += _node("ReduceMean", ["rows"], "logits", axes=(1,), keepdims=0)
    graph += _bytes(2, "pairs") + _tensor("table", table) + _inputs(["input_ids"])
    return _model(graph + _value(12, "logits", _FLOAT, ("batch", table.shape[1])))


def tokenizer_json() -> str:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    made = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    text: str = made.to_str()
    return text


def write_model(folder: Path, model: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "tokenizer.json").write_text(tokenizer_json(), "utf-8")
    return folder
