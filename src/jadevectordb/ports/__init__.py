"""What the core asks of the world, as protocols. Adapters implement them; `main` and the simulation choose."""
