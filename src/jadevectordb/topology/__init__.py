"""Where things belong, decided from what is known: pure, and the same on every node and in every client."""
