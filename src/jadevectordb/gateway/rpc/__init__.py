"""gRPC: the public services, health, reflection, and what nodes ask of each other. Parse, authenticate, call, answer."""
