"""`callvault erase`: destroy one recording because somebody asked, or say when that can be, or what forbids it."""

from typing import Annotated

import typer

from config.clock import SystemClock
from config.settings import Settings
from storage.errors import StoreError
from storage.s3.store import S3Store
from storage.sidecar import utc_text
from storage.state import StateUnavailable
from tasks.cli.common import Config, Exit, Json, Level, LogLevel, print_json, read_settings, run_async, usage, who
from tasks.cli.retention_expire import state_of
from worker.due import Surprise
from worker.erase import Answer, Outcome
from worker.erase import erase as erase_recording
from worker.runtime import make_services


def erase(
    recording: Annotated[
        str, typer.Option("--recording", metavar="SOURCE/ID", help="The recording; the id as the phone system has it.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the certificate.")],
    config: Config = None,
    json: Json = False,
    log_level: LogLevel = Level.WARNING,
) -> None:
    """Erase one recording with its sidecar, gap record and evidence, and never archive it again."""
    settings, _ = read_settings(config, log_level)
    source, _, id_ = recording.partition("/")
    if not source or not id_:
        raise usage(f"--recording {recording}: write SOURCE/ID, such as hq/20260301-17")
    if not reason.strip():
        raise usage("--reason is empty: write why, it goes into the certificate")
    try:
        answer = run_async(_erase(settings, source, id_, reason))
    except Surprise as surprise:
        answer = Answer(Outcome.REFUSED, surprise.message)
    except (StoreError, StateUnavailable) as error:
        if json:
            print_json({"recording": recording, "outcome": None, "detail": str(error)})
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(Exit.UNUSABLE) from error
    if json:
        print_json(
            {
                "recording": recording,
                "outcome": answer.outcome.value,
                "detail": answer.detail,
                "until": utc_text(answer.until) if answer.until else None,
                "rule": answer.rule,
                "matters": answer.matters,
                "certificates": answer.certificates,
            }
        )
    else:
        done = answer.outcome in (Outcome.ERASED, Outcome.DEFERRED)
        typer.echo(f"{answer.outcome.value}: {answer.detail}", err=not done)
        for key in answer.certificates:
            typer.echo(f"certificate: {key}")
    well = answer.outcome in (Outcome.ERASED, Outcome.DEFERRED)
    raise typer.Exit(Exit.WELL if well else Exit.INCOMPLETE)


async def _erase(settings: Settings, source: str, id_: str, reason: str) -> Answer:
    clock = SystemClock()
    async with make_services(settings, clock, S3Store(settings.archive, clock), await state_of(settings)) as services:
        return await erase_recording(services, source, id_, reason=reason, by=who())
