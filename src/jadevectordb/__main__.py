"""`python -m jadevectordb` is the command `jade`."""

from jadevectordb.cli.main import main

main()
