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
TERM_COUNTS_REMEMBERED_MAX = 256  # queries of a cluster's database, whose words' counts a gateway remembers
TEXT_FIELDS_MAX = 16  # metadata fields of a database that are searched as text
TERM_BYTES_MAX = 256  # a longer word is not indexed

DEPARTURES_REMEMBERED_MAX = 10_000  # vectors a shard knows to have left for another one, where shards share a log
CELLS_MAX = 4096  # of a database that is sharded by vector,
CELLS_BYTES_MAX = 512 << 10  # whose centroids are one record of the metadata store
CELL_SAMPLE_ROWS_MIN, CELL_SAMPLE_ROWS_MAX = 256, 100_000  # vectors that cells are found in; of more, so many are taken
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
FREEZE_BARRIERS_MAX = 200_000  # the same for barriers, which cost a restart little and come with every STRONG read
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

REQUESTS_WAITING_MAX = 1024  # requests that wait for a thread or for other nodes; more are told to come back
REQUESTS_AWAITED_MAX = 64  # of these, searches that other nodes are asked at once; the others wait in line
FAST_BODY_BYTES_MAX = 1 << 20  # a request body up to this size is collected without further ado
HEADER_BYTES_MAX = 64 << 10  # request line and headers

ANSWER_HEAD_BYTES_MAX = 64 << 10  # of an answer that a client reads, the status line and headers
ANSWER_HEADERS_MAX = 100
ANSWER_BYTES_MAX = 1 << 30  # and the body
CLIENT_CONNECTIONS_MAX = 1024  # what connections_max of a client may be set to
CLIENT_ATTEMPTS_MAX = 10  # what attempts_max of a client's retries may be set to
CLIENT_CLUSTER_ATTEMPTS_MAX = 1000  # the same where several nodes can answer; the time for a call ends first
CLIENT_NODES_MAX = 256  # nodes of a cluster that a client remembers
CLIENT_TARGET_LENGTH_MAX = 4096  # characters of path and query string; a longer request goes into the body as JSON
BULK_BATCH_BYTES_MAX = 32 << 20  # vectors and metadata of one batch of a bulk upsert, whatever batch_rows says
BULK_PARALLEL_MAX = 64  # batches of a bulk upsert on their way at once

DATABASES_IN_LABELS_MAX = 200  # databases with figures of their own in /metrics; the rest is summed up
ROUTES_METERED_MAX = 512  # routes and RPCs with figures of their own
USAGE_READINGS_MAX = 12  # of the machine, one every 5 s: a minute
PERFORMANCE_SUMS_MAX = 26  # of the meters, one every 5 s: two minutes, to compare a minute with the one before
SLOW_QUERIES_MAX = 256  # newest slow searches that are kept with their plans
SLOW_QUERIES_WAITING_MAX = 8  # slow searches that wait to be explained; more are kept without a plan
SLOW_QUERY_TEXT_MAX = 2000  # characters of a slow search's filter and words that are kept
RECALL_SAMPLES_MAX = 500  # newest shadow searches of a database that its recall is the mean of
LOG_ENTRIES_MAX = 5000  # newest log lines that are kept in memory
LOG_MESSAGE_LENGTH_MAX = 8192  # characters of one log line
LOG_LINES_WAITING_MAX = 10_000  # log lines on their way to a file or terminal; more are dropped and counted
SERVER_LOG_BYTES_MAX = 64 << 20  # a server's log file is turned over at this size,
SERVER_LOG_FILES_MAX = 5  # and so many old ones are kept
SPANS_WAITING_MAX = 2048  # trace spans on their way to the collector; more are dropped

PEER_CONNECTIONS_MIN = 2  # to one peer, kept however idle,
PEER_CONNECTIONS_INITIAL = 5  # made at first,
PEER_CONNECTIONS_MAX = 20  # and at most; beyond it calls share connections
PEER_IDLE_S_MAX = 60.0  # a connection idle for so long is closed
PEER_SEARCH_S_MAX = 2.0  # a call to a peer with all its tries, by kind
PEER_WRITE_S_MAX = 3.0
PEER_HEALTH_S_MAX = 1.0
PEER_OTHER_S_MAX = 5.0
PEER_TRIES_MAX = 3
PEER_RETRY_S_MIN = 0.1  # before the second try; doubled before the third
PEERS_MAX = 1024  # peers one node keeps connections to
BREAKER_CALLS_MAX = 20  # recent calls that a circuit breaker judges by,
BREAKER_WINDOW_S = 10.0  # none older than this
BREAKER_FAILURES_MIN = 5  # it opens when so many failed, and they are half of them or more
BREAKER_OPEN_S_MIN = 1.0  # how long it stays open at first; doubled with every probe that fails
BREAKER_OPEN_S_MAX = 30.0

QUERIES_BUFFERED_MAX = (
    65_536  # recorded searches on their way to the query log; beyond it the newest are counted and dropped
)
QUERIES_KEPT_MAX = 2_000_000  # searches in the query log, oldest forgotten first
QUERIES_KEPT_DAYS = 90
QUERY_TEXT_LENGTH_MAX = 2_000  # characters of a query that the query log keeps
FEEDBACK_TEXT_LENGTH_MAX = 10_000  # characters
ANALYTICS_ITEMS_MAX = 1000  # queries, patterns or trends of one answer

RERANK_DOCUMENTS_MAX = 1000  # documents of one re-ranking
RERANK_TEXT_LENGTH_MAX = 100_000  # characters of one document that are looked at
RERANK_BATCH_MAX = 512  # documents a cross-encoder is given at once
EMBED_TEXTS_MAX = 256  # texts of one embedding request
EMBED_TEXT_LENGTH_MAX = 100_000  # characters of one of them
DOCUMENTS_PER_REQUEST_MAX = 100_000  # texts given to a BM25 index in one request
DOCUMENT_TEXT_BYTES_MAX = 1 << 19  # one such text
FUSION_DEPTH_MIN = 100  # hits of each ranking that a fusion looks at, at least

ALERTS_KEPT_MAX = 1000  # the oldest acknowledged ones go first
ALERT_MESSAGE_LENGTH_MAX = 2_000  # characters
WRITE_TIMES_KEPT_MAX = 1024  # moments a database remembers to tell how old its vectors are
EXPIRE_BATCH_ROWS = 1000  # vectors archived and deleted in one step
SEARCH_BATCH_MAX = 1000  # queries in one request

HNSW_LINKS_MAX = 128  # index parameters that may be set by hand
HNSW_BREADTH_MAX = 10_000
IVF_LISTS_MAX = 65_536
LSH_TABLES_MAX = 256
LSH_TABLE_BITS_MAX = 1024
LSH_BITS_MAX = 8192  # of one row's code
ALTER_WAIT_S_MAX = 60.0  # how long changing a database waits for rows on their way to the disk

EVENTS_WAITING_MAX = 100_000  # events that wait to be written; beyond it the oldest are dropped and counted
EVENT_BATCH_MAX = 1000  # events of one transaction
EVENT_FLUSH_S = 1.0  # how long an event may wait to be written
EVENT_TEXT_LENGTH_MAX = 1000  # characters of an event's details
AUDIT_ROWS_MAX = 1_000_000  # events the audit log keeps; the oldest go first
AUDIT_PAGE_MAX = 1000  # events of one answer

USERNAME_LENGTH_MAX = 128
EMAIL_LENGTH_MAX = 254
PASSWORD_LENGTH_MIN = 8
PASSWORD_LENGTH_MAX = 1024
ACCOUNTS_MAX = 100_000
KEYS_PER_USER_MAX = 1000  # of which the oldest revoked and expired ones are forgotten first
KEY_DAYS_MAX = 36_500  # validity of an API key
KEY_TEXT_LENGTH_MAX = 500  # characters of an API key's description
KEY_PERMISSIONS_MAX = 100  # words in the permissions of an API key
SESSIONS_PER_USER_MAX = 256  # the one unused for longest ends when another begins
CREDENTIALS_REMEMBERED_MAX = 10_000  # verified credentials kept in memory
CREDENTIAL_LENGTH_MAX = 4096  # characters of an Authorization header
PASSWORD_HASHES_MAX = 2  # computed at once: each takes 64 MiB and a core for a moment
PASSWORD_HASHES_WAITING_MAX = 16  # more sign-ins than this are told to come back
RESET_VALID_S = 900.0  # how long a password reset token works
RESETS_WAITING_MAX = 100  # password resets that wait to be delivered; more are not
RATE_NAMES_MAX = 100_000  # principals and addresses that have a rate of their own; the one idle longest is forgotten
CLAIM_PENDING_S = 5.0  # how long somebody who is about to bear a name, and may be dead, is waited for
DATABASE_PENDING_S = 35.0  # the same of a database's name: creating one takes PLACE_S_MAX at most
CLAIMS_SEEN_MAX = 1000  # names whose holder was seen to be on its way to it
STORE_ATTEMPTS_MAX = 16  # how often a change of a record is tried again when someone else changed it meanwhile
GRANTS_MAX = 1000  # users a database is granted to

FOLLOW_OPEN_ATTEMPTS_MAX = 100  # how often a folder that another process changes is opened anew before that is an error
FOLLOW_SHOWN_LOOKS_MAX = 500  # 2 ms apart, whether the writer shows what was read from its log
FOLLOW_INLINE_BYTES_MAX = 256 << 10  # of log that a request waits for to be applied; beyond it another process answers
FOLLOWED_DATABASES_MAX = 65_536  # that reading processes can follow at once
REPORTS_WAITING_MAX = 200_000  # events that a reading process has not told yet; beyond it they are dropped and counted
REPORT_EVERY_S = 0.1

RPC_MESSAGE_BYTES_MAX_RECEIVED = 256 << 20  # one gRPC message
RPC_DETAILS_BYTES_MAX = 2048  # an error's details in trailing metadata; larger ones are left out
RPC_MESSAGE_BYTES_MAX = 2048  # an error's sentence
INDEXES_MAX = 64  # index definitions of one database
RPC_REQUEST_BYTES_MAX = 64 << 20  # one message that a client sends
RPC_THREADS = 16  # calls served at once; more wait, as many as REQUESTS_WAITING_MAX
RPC_LONG_CALLS_MAX = 8  # of these threads, for streams and waits: the rest stays for calls that end soon
RPC_STREAM_IDLE_S_MAX = 60.0  # a stream on which nothing moves for so long is ended
RPC_HEALTH_WATCHERS_MAX = 256
RPC_CALLS_PER_CONNECTION_MAX = 256
RPC_METADATA_BYTES_MAX = 16 << 10  # of one call
RPC_PAGE_BYTES = 1 << 20  # vectors and metadata of one message of a scroll, about
RPC_WAIT_S_MAX = 3600.0  # for an index or a merge
IGNORED_FIELDS_NAMED_MAX = 50  # names of unknown body fields that an answer's header repeats
PATHS_REMEMBERED_MAX = 4096  # request paths whose route is remembered,
TARGET_REMEMBERED_MAX = 512  # characters of such a path, and of a query string whose meaning is remembered

NATS_PAYLOAD_BYTES_MAX = (
    8 << 20
)  # one message of the replicated log or metadata store; entries are about ENTRY_BYTES_MAX
NATS_CONTROL_LINE_BYTES_MAX = 8192  # subject, reply subject and sizes of one message
LOG_REPLICAS = 3  # nats-servers that keep a copy of each stream, where there are as many
NATS_RESTART_S_MIN = 0.25  # before a server that died is started again; doubled each time it dies soon after,
NATS_RESTART_S_MAX = 15.0  # up to this
NATS_RECONNECT_S_MIN = 0.05  # between attempts to reach any server of the list, doubled
NATS_RECONNECT_S_MAX = 1.0  # up to this
LOG_REQUEST_ENTRIES_MAX = 256  # entries of one request for one shard, in a replicated log,
LOG_REQUEST_BYTES_MAX = 64 << 20  # and their bytes: they are stored together or not at all
LOG_APPENDING_BYTES_MAX = 64 << 20  # entries of this process on their way to the replicated log; more wait
LOG_APPEND_S_MAX = 10.0  # how long an append tries before it says that it is undecided
LOG_DUPLICATES_S = 120.0  # how long the replicated log recognises an entry that is sent again
LOG_FOLLOW_BYTES_MAX = 4 << 20  # entries asked for ahead of what a follower has handled
STORE_KEY_BYTES_MAX = 1024  # of a key in the metadata store, as UTF-8
STORE_TOMBSTONES_MAX = (
    10_000  # deleted records that a replicated metadata store remembers; beyond it the older half is forgotten
)
STORE_ANSWER_S_MAX = 10.0  # how long a call to the replicated metadata store tries

NODE_FRAME_BYTES_MAX = 16 << 20  # one call or answer between nodes
NODE_CALLS_MAX = 1024  # calls under way on one connection between nodes; more are refused
NODE_CONNECTIONS_MAX = 512  # of other nodes to this one
NODE_PEERS_MAX = 1024  # addresses that a node keeps connections to,
NODE_PEER_IDLE_S_MAX = 60.0  # and tries to reach again for so long after the last call
NODE_CONNECT_S_MAX = 1.0  # how long connecting to another node may take,
NODE_GREETING_S_MAX = 2.0  # and making sure of each other after that
NODE_RECONNECT_S_MIN = 0.05  # between attempts to reach a node, doubled
NODE_RECONNECT_S_MAX = 2.0  # up to this
NODE_BEAT_S = 0.5  # how often a connection between nodes is looked at:
NODE_BEATS_IDLE_MAX = 2  # after so many looks without a byte the other side is pinged,
NODE_BEATS_SILENT_MAX = 6  # and after so many it is given up
NODE_UNSENT_BYTES_HIGH = 16 << 20  # what waits to be sent to a node; beyond it no calls are taken for it or from it,
NODE_UNSENT_BYTES_MAX = 128 << 20  # and beyond this the connection is given up

HISTORY_EVENTS_MAX = 5_000_000  # invocations, answers and faults of one recorded history
CHECK_CONFIGURATIONS_MAX = 20_000  # states of one vector that the checker of histories follows at once
CHECK_TRIALS_MAX = 1_000  # sub-histories tried to find the smallest one that explains a violation
VIOLATIONS_LISTED_MAX = 100  # violations that a report shows in full; all are counted

OUTCOMES_KEPT_MAX = 16_384  # newest entries of a replica whose outcome is remembered for writers that ask
APPLIED_WAITERS_MAX = 65_536  # callers of one replica that wait for a log entry to be applied
REPLICA_LAG_ENTRIES_MAX = 1000  # entries a replica may be behind its log's end when it is called caught up
REPLICA_RETRY_S_MIN = 0.5  # before a replica that can't be loaded or followed is tried again, doubled
REPLICA_RETRY_S_MAX = 15.0  # up to this
SNAPSHOT_ENTRIES_MIN = 1000  # a log with so many entries is not replayed where another replica has a snapshot
SNAPSHOTS_OFFERED_MAX = 4  # snapshots that a node keeps for other nodes to copy, all its shards together
SNAPSHOTS_COPIED_MAX = 2  # snapshots that a node copies from others at once
SNAPSHOT_IDLE_S_MAX = 60.0  # one that nobody has read for so long is removed
SNAPSHOT_READ_BYTES = 1 << 20  # of one read,
SNAPSHOT_READS = 4  # and so many at once
SNAPSHOT_FILES_MAX = 100_000
NODE_SEARCH_THREADS = 4  # for what other nodes ask and takes longer than NODE_INLINE_US_MAX
NODE_INLINE_US_MAX = 300.0  # a search that costs less is done in the loop that received it,
NODE_HERE_US_MAX = 20_000.0  # and one that this node's own gateway asks, in the gateway's thread
HEARTBEAT_S = 1.0
RETIRED_SERVES_S = 2.0  # how long a replica that is needed no more still answers, for those with an older map
REPLICAS_MAX = 7  # of one shard
NODES_MAX = 1024  # of a cluster
HURRY_S_MAX = 10.0  # how long builds are hurried because somebody once said that he waits; who waits says it again
MAP_CHANGES_KEPT_MAX = 64  # newest changes of the cluster map that it carries the reasons of,
MAP_REASON_LENGTH_MAX = 300  # each of so many characters
MASTER_TURN_S = 0.5  # how often the master looks whether something is to be done, when nothing has changed
MASTER_TURN_S_MIN = 0.05  # and how often at most, however much changes
TRUNCATE_EVERY_S = 10.0  # how often logs are cut to what is still needed

NODES_BALANCED_MAX = 1024  # nodes whose latency a gateway remembers
SUSPECTED_S_MIN = 0.5  # how long a node that did not answer is asked last; doubled with every time,
SUSPECTED_S_MAX = 8.0  # up to this
HEDGE_DELAY_S_MIN = (
    0.002  # before a second replica is asked the same: the 95th percentile of answers, within these bounds
)
HEDGE_DELAY_S_MAX = 0.25
HEDGE_SHARE_MAX = 0.1  # second calls, as a share of first ones
ASK_ROUNDS_MAX = 64  # times that all replicas of a shard are tried in turn, with pauses, within a caller's deadline
CALLER_GRACE_S = 5.0  # beyond a caller's own deadline: the loop itself hangs
READ_S_MAX = 10.0  # how long a read of a cluster tries unless it says otherwise,
READ_WORKER_S_MAX = 2.0  # and how long one node may take
LOOK_WORKER_S_MAX = 30.0  # or, to go through all rows of its shards
VERIFY_S_MAX = 600.0  # or, to read all files of one replica
WRITE_S_MAX = 10.0  # how long a write waits, once it is durable, for replicas to apply it
FAILED_IDS_NAMED_MAX = 1000  # ids that an error names when a write failed in part
PLACE_S_MAX = 30.0  # how long creating a database waits until its shards are served
BY_ID_ROWS_MAX = 100_000  # vectors of a cluster's database that are shown in numbered pages
NODE_ANSWER_BYTES = 4 << 20  # vectors asked for in one answer between nodes, about
OUTBOX_BYTES_MAX = 64 << 20  # writes of a database at EVENTUAL that wait on a node to be published; more are refused
HYBRID_AHEAD_MS_MAX = 10_000  # a time further before a gateway's own clock does not move that clock
STAMPS_MAX = 65_536  # log entries of a shard whose writer and time are remembered, once it has writes at EVENTUAL
DELETES_REMEMBERED_MAX = 32_768  # deleted ids of a shard, likewise
CONFLICTS_LISTED_MAX = 1_000  # of a shard, the newest; all are counted
OUTBOX_PAUSE_S_MIN = 0.05  # before publishing is tried again, doubled
OUTBOX_PAUSE_S_MAX = 5.0  # up to this
CONDITIONAL_ENTRY_FACTOR = (
    6  # all conditions of a request and shard are in one log entry: so many times ENTRY_BYTES_MAX
)
