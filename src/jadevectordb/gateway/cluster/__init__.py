"""What a gateway of a cluster is made of: a store and databases whose shards are on many nodes, and the cluster as people see it."""
