"""Ways into the database. A gateway parses and checks what it is given and hands it on, nothing else."""
