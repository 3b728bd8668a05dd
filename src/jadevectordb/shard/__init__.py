"""One replica of one shard: a pure function of its log (`apply`), and what keeps it on disk (`replica`, `maintenance`)."""
