"""Messages of the gRPC services, made from `proto/` by `proto/generate.sh`; nothing here is written by hand."""
