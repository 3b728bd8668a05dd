"""Blocks of rows: one growing in memory, the others sealed in folders that never change."""
