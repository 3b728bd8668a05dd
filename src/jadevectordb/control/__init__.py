"""The control plane: who is master, what the cluster is seen to be, and what the cluster map becomes. It never calls a shard."""
