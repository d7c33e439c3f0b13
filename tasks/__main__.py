"""`python -m tasks` is `callvault`, for where the command itself is not on the path."""

from tasks.cli import main

main()
