"""What every door of the server shares, whatever the transport: databases with names and owners, vectors, searches, and more."""
