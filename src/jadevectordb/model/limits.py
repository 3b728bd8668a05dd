"""Every bound of the system, by name. Units come last in a name."""

from __future__ import annotations

DIMENSION_MAX = 4096
ID_LENGTH_MAX = 512  # characters
NAME_LENGTH_MAX = 128  # characters of a database name
METADATA_BYTES_MAX = 1 << 20  # one vector's metadata as JSON
K_MAX = 10_000  # results of one search
BATCH_ROWS_MAX = 1_000_000  # vectors in one request
REQUEST_BYTES_MAX = 1 << 30  # one request, vectors and metadata together
SHARDS_MAX = 1024

ENTRY_BYTES_MAX = 1 << 20  # a request is cut into log entries of about this size
ENTRY_ROWS_MAX = 8192  # and of at most this many vectors
LOG_FILE_BYTES = 64 << 20  # a log file is closed and a new one begun at about this size

FILTER_DEPTH_MAX = 32
FILTER_NODES_MAX = 1024
FILTER_LIST_MAX = 100_000  # values of one `in`
REGEX_LENGTH_MAX = 1000  # characters
FIELD_PATH_DEPTH_MAX = 16
COLUMNS_MAX = 512  # metadata fields of one segment that get a column; the rest is filtered by reading records
COLUMN_STRING_BYTES_MAX = 256  # a longer string is filtered by reading its record
QUERY_TERMS_MAX = 64  # words of one full-text query

REQUESTS_REMEMBERED_MAX = 100_000  # request ids a shard de-duplicates against, oldest forgotten first
