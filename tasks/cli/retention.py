"""`callvault retention`: the verbs about how long recordings are kept, put together; each is in a file of its own."""

import typer

retention = typer.Typer(
    name="retention",
    help="How long recordings are kept: what is due, what is locked, and destruction with a certificate.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@retention.callback()
def _family() -> None:
    """How long recordings are kept: what is due, what is locked, and destruction with a certificate."""
