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
ENTRY_ROWS_MAX = 4096  # and of at most this many vectors
LOG_FILE_BYTES = 64 << 20  # a log file is closed and a new one begun at about this size

FILTER_DEPTH_MAX = 32
FILTER_NODES_MAX = 1024
FILTER_LIST_MAX = 100_000  # values of one `in`
REGEX_LENGTH_MAX = 1000  # characters
FIELD_PATH_DEPTH_MAX = 16
COLUMNS_MAX = 512  # metadata fields of one segment that get a column; the rest is filtered by reading records
COLUMN_STRING_BYTES_MAX = 256  # a longer string is filtered by reading its record
QUERY_TERMS_MAX = 64  # words of one full-text query
TEXT_FIELDS_MAX = 16  # metadata fields of a database that are searched as text
TERM_BYTES_MAX = 256  # a longer word is not indexed

REQUESTS_REMEMBERED_MAX = 100_000  # request ids a shard de-duplicates against, oldest forgotten first

SEAL_ROWS = 8192  # a growing segment is frozen when it holds this many rows,
SEAL_BYTES = 64 << 20  # or this many bytes of vectors
UNWRITTEN_BYTES_MAX = 256 << 20  # frozen rows still in memory; beyond it writers wait for the disk
WRITER_WAIT_S_MAX = 60.0  # how long a writer waits for that before it is told why
SEGMENTS_PER_SHARD = 4  # what merging aims at

METADATA_DEPTH_MAX = 32  # objects and arrays inside each other
SCHEMA_FIELDS_MAX = 512  # declared fields of one database
FIELD_PATH_LENGTH_MAX = 512  # characters
FILTER_STRING_LENGTH_MAX = 1 << 16  # characters of one value in a filter
COLUMN_LONG_TERM_BYTES = 64  # of a string longer than COLUMN_STRING_BYTES_MAX, this much is kept, for order and prefix
COLUMN_BUILD_TERM_BYTES_MAX = 64 << 20  # distinct strings a column build holds in memory; beyond it they go to disk
COLUMN_CACHE_BYTES_MAX = 8 << 20  # answers to recent filters that one segment remembers
COLUMN_CACHE_ENTRIES_MAX = 1024
COLUMN_CACHE_NODES_MAX = 256  # a filter with more nodes and list values than this is not remembered
GROWING_BLOCK_ROWS = 1024  # rows of a growing segment that become one column set in memory
FREEZE_ENTRIES_MAX = (
    10_000  # entries after which a growing segment is frozen however few rows it has: bounds what a restart replays
)
FREEZE_DEAD_ROWS_MAX = 65_536  # and rows killed

LOG_GROUP_BYTES_MAX = 16 << 20  # frames of callers that wait at the same time are synced together up to this size
LOG_RESERVE_BYTES_MIN = 1 << 20  # disk reserved ahead of the log's end: as much as is written, between these two
LOG_RESERVE_BYTES_MAX = 16 << 20
LOG_ROTATE_BYTES_MIN = 1 << 20  # truncation leaves an active file smaller than this alone
INTEGER_BITS_MAX = 4096  # of one integer in metadata or in a filter

TRANSFER_LINE_BYTES_MAX = 8 << 20  # one line of an imported text file, and one cell of a CSV file
TRANSFER_BATCH_BYTES_MAX = 32 << 20  # rows read from a file before they are sent on, whatever batch_rows says
TRANSFER_ERRORS_KEPT_MAX = 100  # bad rows an import report shows; the rest is counted

SEAL_ROWS_MAX = 1 << 20  # what seal_rows of a database may be set to
FILTERS_REMEMBERED_MAX = 16  # recent filters whose rows a view keeps for each segment, one bitmap each at most

REQUESTS_WAITING_MAX = 1024  # requests that wait for a thread; more are told to come back
FAST_BODY_BYTES_MAX = 1 << 20  # a request body up to this size is collected without further ado
HEADER_BYTES_MAX = 64 << 10  # request line and headers
