"""The REST contract of existing clients, one file for each kind of resource. Each file ends with its `ROUTES`."""
