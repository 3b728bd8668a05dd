"""Real clusters under faults: kills, pauses, partitions, bad disks, while clients write and read, and a verdict at the end."""
