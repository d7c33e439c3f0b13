"""The command line, one file a verb or family of verbs. Thin: parse, call `worker`, show, exit."""


def main() -> None:
    """Run the `callvault` command."""
    from tasks.cli.command import app  # noqa: PLC0415 - importing the package does nothing

    app()
