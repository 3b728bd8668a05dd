"""Finding candidate rows in one immutable block of rows: by vector, by metadata, by text. Rows are numbered from 0."""
