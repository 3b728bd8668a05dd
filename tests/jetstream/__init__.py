"""The replicated log and metadata store on real nats-servers that are killed, stopped and damaged."""
