"""What a server can be told, from which sources, and what it was told."""
