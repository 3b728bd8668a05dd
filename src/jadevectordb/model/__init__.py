"""The words of the database: identities, operations, schema, filters, errors, limits. Imports nothing of ours."""
