"""The scope of `callvault hold add`: read from the command line, refused with what to write instead."""

from datetime import date, datetime
from typing import Annotated

import typer
from pydantic import ValidationError

from config.mistakes import meant
from storage.holds import Hold, Scope
from tasks.cli.common import usage
from tasks.cli.run import moment
from worker import entries
from worker.runtime import Services

Recording = Annotated[
    list[str] | None, typer.Option("--recording", help="One recording, as SOURCE/ID; may be repeated. Nothing else.")
]
Source = Annotated[str | None, typer.Option("--source", help="Calls of the sources that this pattern matches.")]
From = Annotated[str | None, typer.Option("--from", help="Calls that started then or later, ISO 8601 with offset.")]
To = Annotated[str | None, typer.Option("--to", help="Calls that started before that.")]
Number = Annotated[str | None, typer.Option("--number", help="Either party's number, a pattern such as +4420*.")]
Agent = Annotated[str | None, typer.Option("--agent", help="The agent, a pattern; upper and lower case differ.")]
Queue = Annotated[str | None, typer.Option("--queue", help="The queue, a pattern such as desk*.")]


def scope_of(
    recordings: list[str] | None,
    source: str | None,
    from_: str | None,
    to: str | None,
    number: str | None,
    agent: str | None,
    queue: str | None,
) -> Scope:
    """Return the scope that was asked for; exit with 2 where it makes no sense."""
    begins, ends = _moment("--from", from_), _moment("--to", to)
    if not recordings and all(told is None for told in (source, from_, to, number, agent, queue)):
        raise usage(
            "which recordings? Name them with --recording SOURCE/ID, or give at least one of --source, --from, --to,"
            ' --number, --agent, --queue; to hold every one, write --source "*"'
        )
    try:
        return Scope(
            recordings=tuple(dict.fromkeys(recordings or ())),
            source=source,
            from_=begins,
            to=ends,
            number=number,
            agent=agent,
            queue=queue,
        )
    except ValidationError as error:
        raise usage(f"the scope: {error.errors()[0]['ctx']['error']}") from error


def _moment(option: str, text: str | None) -> datetime | None:
    """Read a time. A date alone is refused: a matter is about a moment, and a day begins elsewhere at another one."""
    if text is None:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return moment(option, text)
    raise usage(
        f"{option} {text}: a day begins at another moment in each time zone; write {day}T00:00:00Z for UTC, or with the"
        f" zone's offset, such as {day}T00:00:00+01:00"
    )


async def doubts(services: Services, hold: Hold) -> list[str]:
    """Return what looks like a mistake in a scope, and may be meant: sources that nobody has heard of."""
    configured = {source.name for source in services.settings.sources}
    known = configured | set(await entries.sources(services))
    told = f"; known are {', '.join(sorted(known))}" if known else ""
    if hold.scope.recordings:
        named = dict.fromkeys(one.partition("/")[0] for one in hold.scope.recordings)
        unknown = [name for name in named if name not in known]
    else:
        unknown = [] if any(hold.scope.may_be_of(name) for name in known) else [hold.scope.source or "*"]
    return [
        f"no source {name} is configured or in the archive{meant(name, known) or told}; it is held when it comes"
        for name in unknown
    ]
