"""Questions and changes as a whole: over all segments and shards of a database."""
