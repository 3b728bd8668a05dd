"""Moving vectors between files and databases: JSON Lines, CSV, Parquet, .npy, .fvecs.

In reading order: `ends` says what a transfer needs of a database; `formats` which file is what; `rows` and the `read_*` modules
turn files into checked batches; `importer` sends them, `checkpoint` remembers how far it came; `exporter`, `writers` and `output`
are the way back.
"""

from jadevectordb.transfer.ends import Item, OnProgress, Page, VectorSink, VectorSource
from jadevectordb.transfer.exporter import ExportReport, export_file
from jadevectordb.transfer.formats import Columns, Format, ids_path
from jadevectordb.transfer.importer import ImportReport, import_file
from jadevectordb.transfer.rows import BadRow

__all__ = [
    "BadRow",
    "Columns",
    "ExportReport",
    "Format",
    "ImportReport",
    "Item",
    "OnProgress",
    "Page",
    "VectorSink",
    "VectorSource",
    "export_file",
    "ids_path",
    "import_file",
]
