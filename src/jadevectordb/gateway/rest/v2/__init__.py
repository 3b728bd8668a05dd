"""The native API: tidy JSON or raw float32, one file for each kind of resource. Each file ends with its `ROUTES`."""
