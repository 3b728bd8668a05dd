"""The way in for a Python program that keeps the database in its own process."""
