"""Whole clusters under faults: simulated in one process or real ones, what clients saw of them, and whether it was right."""
