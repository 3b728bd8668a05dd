"""JadeVectorDB: a vector database that keeps its word."""
