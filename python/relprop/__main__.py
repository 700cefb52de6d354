"""``python -m relprop`` is the command line."""

from relprop.cli import main

main()
