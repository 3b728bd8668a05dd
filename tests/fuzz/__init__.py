"""A fuzzer of a running server: `python -m tests.fuzz --requests 200000 --seed 1`."""
