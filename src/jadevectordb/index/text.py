"""Full-text search in a block of rows: BM25, exact over the whole database, deleted rows and filters taken into account.

A query is analysed once (`Analyzer.query_terms`). Every block, sealed (`open_text`) or growing (`GrowingText.reader`), is a
`TextReader`: its `stats` are added up over all blocks of all shards, then its `search` scores its own rows with the sum.

In reading order: `text_analysis` makes terms of text, `text_bm25` counts and scores, `text_growing` keeps postings of rows
that still come in, `text_build` writes those of a sealed block while streaming, `text_file` is their file format.
"""

from jadevectordb.index.text_analysis import LANGUAGES, Analyzer, TextConfig
from jadevectordb.index.text_bm25 import TermStats, TextReader
from jadevectordb.index.text_build import build_text
from jadevectordb.index.text_file import TextIndex, open_text
from jadevectordb.index.text_growing import GrowingText

__all__ = [
    "LANGUAGES",
    "Analyzer",
    "GrowingText",
    "TermStats",
    "TextConfig",
    "TextIndex",
    "TextReader",
    "build_text",
    "open_text",
]
