"""Processes that are killed, and what must be true of their files afterwards."""
