"""Writing certificates and notes, and finding certificates that were begun and never completed.

All are locked like a recording that ends now under the longest promise of the policy, where it has a mode.
"""

import hashlib
import secrets
from datetime import datetime

from pydantic import ValidationError

from storage.certificate import Certificate, DestroyedNote, DoomedRecording
from storage.errors import AlreadyExists, IntegrityError, ObjectMissing
from storage.retention import record_lock
from storage.sidecar import Model, canonical
from worker.due import Surprise
from worker.runtime import Services

_MAX = 64 * 1024 * 1024


async def write(services: Services, key: str, model: Model, *, create_only: bool) -> None:
    """Write what is put on record. AlreadyExists where it is to be created and something else is there."""
    body = canonical(model)
    try:
        await services.store.put(
            key,
            body,
            sha256=hashlib.sha256(body).hexdigest(),
            content_type="application/json",
            create_only=create_only,
            lock=record_lock(services.settings.retention, services.clock.now()),
        )
    except AlreadyExists:  # by ourselves, in a try whose answer was lost, or by somebody else
        if await services.store.get(key, max_bytes=_MAX) != body:
            raise


def new_key(services: Services, now: datetime) -> tuple[str, str]:
    """Return an id that sorts by time, and the key of the certificate."""
    id_ = f"{now:%H%M%S}-{secrets.token_hex(8)}"
    return id_, services.keys.certificate(now.date(), id_)


async def read_certificate(services: Services, key: str) -> Certificate:
    """Return a certificate. Surprise where there is none that can be read."""
    try:
        return Certificate.model_validate_json(await services.store.get(key, max_bytes=_MAX))
    except (ObjectMissing, ValidationError, IntegrityError) as error:
        raise Surprise(
            f"{key} is no certificate that can be read ({type(error).__name__}), so that nobody knows what was begun;"
            " compare its versions, and put it right"
        ) from error


async def unfinished(services: Services) -> list[str]:
    """Return the keys of certificates that were begun and not completed, the oldest first.

    Completing writes a second version, so a listing tells; in a bucket without versions each has to be read.
    """
    versions: dict[str, int] = {}
    async for version in services.store.versions(services.keys.certificates()):
        versions[version.key] = versions.get(version.key, 0) + 1
    return [
        key
        for key, count in versions.items()
        if count == 1 and (await read_certificate(services, key)).state == "begun"
    ]


async def read_note(services: Services, source: str, date: str, rid: str) -> DestroyedNote | None:
    """Return the note that a recording was to be destroyed; None where there is none. Surprise."""
    key = note_key(services, source, date, rid)
    try:
        return DestroyedNote.model_validate_json(await services.store.get(key, max_bytes=_MAX))
    except ObjectMissing:
        return None
    except (ValidationError, IntegrityError) as error:
        raise Surprise(f"{key} is no note that can be read ({type(error).__name__}); put it right") from error


async def claim(services: Services, item: DoomedRecording, certificate: str) -> str | None:
    """Note, before anything is deleted, that a certificate destroys the recording.

    Returns why not, where another batch that is under way has noted it first.
    """
    note = DestroyedNote(
        source=item.source, recording_id=item.recording_id, certificate=certificate, at=services.clock.now()
    )
    key = note_key(services, item.source, item.date, item.rid)
    try:
        await write(services, key, note, create_only=True)
    except AlreadyExists:
        there = await read_note(services, item.source, item.date, item.rid)
        if there is not None and there.certificate == certificate:
            return None
        if there is not None and (await read_certificate(services, there.certificate)).state == "begun":
            return f"certificate {there.certificate} has it, which is under way"
        await write(services, key, note, create_only=False)  # it was kept then, or archived once more since
    return None


def note_key(services: Services, source: str, date: str, rid: str) -> str:
    """Return where the note of a recording lies."""
    return services.keys.destroyed(source, datetime.fromisoformat(date).date(), rid)
