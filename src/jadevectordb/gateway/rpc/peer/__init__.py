"""The asking side of the worker service: connections to other nodes, deadlines, retries, circuit breakers.

`policy.py` and `pool_policy.py` decide and touch nothing; `connections.py` and `peer.py` act; `peers.py` keeps one peer an address.
"""
