"""What one node holds: its open databases, their replicas and the background work on them."""
