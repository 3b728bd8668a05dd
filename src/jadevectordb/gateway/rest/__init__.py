"""HTTP: what clients of every kind speak. Parse, authenticate, limit, call the services, answer; nothing else."""
