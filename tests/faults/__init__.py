"""What the world does to a database: damaged files, full and read-only disks, killed helpers, careless callers."""
