"""From text to terms: what a row is found by, and what a query asks for, are made by the same steps.

Unicode words (letters and digits), compatibility forms unified (NFKC: full width, ligatures, combining accents), lower case,
stop words left out when asked for, accents folded to ASCII, stems by language. tantivy's analyzer does all but NFKC, at about
300,000 short texts a second; a cache from words to stems in front of it was measured and gained nothing.
Scripts written without spaces are not segmented: a run of Chinese or Japanese letters is one term.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import tantivy

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_eval import resolve, scalars
from jadevectordb.model.limits import FIELD_PATH_DEPTH_MAX, QUERY_TERMS_MAX, TERM_BYTES_MAX, TEXT_FIELDS_MAX

LANGUAGES = (
    *("arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian"),
    *("norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish"),
)
_WITHOUT_STOP_WORDS = frozenset({"arabic", "greek", "romanian", "tamil", "turkish"})


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Which metadata fields are searched as text, and in which language.

    fields: paths into the metadata, `title` or `a.b`; the order is that of scoring and of everything kept by field.
    language: a member of LANGUAGES, or "none": words are kept as they are, without stemming.
    stop_words: leave the language's most frequent words out. Off: BM25 weighs them down by itself, and "The Who" is found.
    """

    fields: tuple[str, ...]
    language: str = "english"
    stop_words: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.fields) <= TEXT_FIELDS_MAX or len(set(self.fields)) != len(self.fields):
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"Text search needs 1 to {TEXT_FIELDS_MAX} different fields, got {list(self.fields)}.",
            )
        for field in self.fields:
            steps = field.split(".")
            if not all(steps) or len(steps) > FIELD_PATH_DEPTH_MAX:
                raise JadeError(
                    ErrorCode.INVALID_ARGUMENT,
                    f"'{field}' is not a metadata path: use names joined by dots, at most {FIELD_PATH_DEPTH_MAX} of them.",
                )
        if self.language != "none" and self.language not in LANGUAGES:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"Text language '{self.language}' is not known: use one of {', '.join(LANGUAGES)}, or none.",
            )
        if self.stop_words and (self.language == "none" or self.language in _WITHOUT_STOP_WORDS):
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT, f"There is no stop word list for '{self.language}': set stop_words=False."
            )


class Analyzer:
    """Text to terms. Safe to share between threads."""

    def __init__(self, config: TextConfig) -> None:
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        builder = builder.filter(tantivy.Filter.remove_long(TERM_BYTES_MAX)).filter(tantivy.Filter.lowercase())
        if config.stop_words:  # before folding: the lists have their accents
            builder = builder.filter(tantivy.Filter.stopword(config.language))
        builder = builder.filter(tantivy.Filter.ascii_fold())
        if config.language != "none":
            builder = builder.filter(tantivy.Filter.stemmer(config.language))
        self._analyze: Callable[[str], list[str]] = builder.build().analyze

    def terms(self, text: str) -> list[str]:
        """The terms of a text in order, repeated ones included. A word of TERM_BYTES_MAX bytes or more is left out."""
        if not text.isascii():
            # A lone surrogate is no character: it becomes "?", which separates words.
            text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
        return self._analyze(text)

    def query_terms(self, text: str) -> list[str]:
        """The terms of a query; empty when nothing of it is a word: then there are no hits.

        Raises INVALID_ARGUMENT for more than QUERY_TERMS_MAX different terms.
        """
        terms = self.terms(text)
        different = len(Counter(terms))
        if different > QUERY_TERMS_MAX:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"The text query has {different} different words, at most {QUERY_TERMS_MAX} are allowed: shorten it.",
                details={"terms": different, "terms_max": QUERY_TERMS_MAX},
            )
        return terms


_UNUSUAL = re.compile(r'[\x00-\x1f"\\]')  # in the name of a field


class FieldReader:
    """Takes the text fields out of one row's metadata, decoding as little else as possible.

    A path leads where it leads in a filter (`filter_eval.resolve`): into objects, and into each object of an array. Strings it
    finds, and those in an array it finds, are joined by a new line; other values are no text.
    """

    def __init__(self, config: TextConfig) -> None:
        # Keys may have dots themselves: `a.b.c` may lie below `a`, below `a.b`, or be a key as a whole.
        keys = sorted({".".join(steps[:n]) for steps in _steps(config) for n in range(1, len(steps) + 1)})
        if any(_UNUSUAL.search(key) for key in keys):  # no struct has fields of such names: rows are decoded whole
            self._decode: Callable[[bytes], object] = msgspec.json.Decoder(dict[str, Any]).decode
            self._attributes: dict[str, str] = {}
            self._plain = [("", field) for field in config.fields]
            return
        attributes = {key: f"key_{at}" for at, key in enumerate(keys)}
        row_type = msgspec.defstruct(
            "TextOfRow",
            [(name, Any, msgspec.UNSET) for name in attributes.values()],
            rename={name: key for key, name in attributes.items()},
            gc=False,
        )
        self._decode = msgspec.json.Decoder(row_type).decode
        self._attributes = attributes
        # The attribute of a field that is one key; the path of another.
        self._plain = [(attributes[field] if "." not in field else "", field) for field in config.fields]

    def texts(self, metadata: bytes, row: int) -> list[str]:
        """One text a field, "" where the row has none. metadata: one JSON object as UTF-8, or b"".

        Raises INVALID_METADATA naming the row.
        """
        if not metadata:
            return [""] * len(self._plain)
        try:
            decoded = self._decode(metadata)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise JadeError(
                ErrorCode.INVALID_METADATA,
                f"The metadata of row {row} is not a JSON object: {error}.",
                details={"row": row},
            ) from error
        texts = []
        for attribute, path in self._plain:
            value = getattr(decoded, attribute) if attribute else None
            texts.append(value if type(value) is str else self._joined(decoded, path))
        return texts

    def _joined(self, decoded: object, path: str) -> str:
        if isinstance(decoded, dict):
            document = decoded
        else:
            values = {key: getattr(decoded, name) for key, name in self._attributes.items()}
            document = {key: value for key, value in values.items() if value is not msgspec.UNSET}
        return "\n".join(value for value in scalars(resolve(document, path)) if isinstance(value, str))


def _steps(config: TextConfig) -> list[list[str]]:
    return [field.split(".") for field in config.fields]
