"""One try at one recording: open, receive, verify, publish media, then the sidecar. The transaction is that order.

Nothing is visible under `recordings/` before length and vendor hash agreed; every other exit, cancellation
included, leaves nothing but evidence in quarantine. Trying again and giving up is `worker.pipeline`.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from config import VERSION
from config.events import Event
from config.logs import get_logger
from storage.errors import AlreadyExists, IntegrityError, ObjectMissing
from storage.keys import rid, utc_date
from storage.lock import Lock
from storage.retention import promised
from storage.sidecar import ArchiveFacts, GapReason, MediaFacts, Sidecar, VendorHashFacts, Verdict, canonical
from storage.store import Written
from worker.audio import WAV_HEADER, AudioType, riff_length, sniff
from worker.claim import Keep
from worker.draft import Draft
from worker.errors import GiveUp, NotAudio, Retry, SourceError, Truncated
from worker.holding import Holding
from worker.index import WATERMARK
from worker.model import Recording
from worker.outcome import Fate, Outcome
from worker.runtime import Desk, Services
from worker.steps import Step, reached
from worker.vendor import MediaStream
from worker.verify import compare_hash, size_warning

_MAX_SIDECAR = 32 * 1024 * 1024
_NUMBER = re.compile(r"[0-9]{1,9}")  # what else stands there is not ours

log = get_logger()


class Doubtful(Retry):
    """The bytes came whole but are not to be trusted yet: one more download decides."""


@dataclass(frozen=True, slots=True)
class _Received:
    """What came, measured."""

    draft: Draft
    kind: AudioType
    head: bytes
    warnings: tuple[str, ...]
    framed: bool


class Transfer:
    """The tries at one recording. What an earlier try saw is remembered: two equal downloads prove each other."""

    def __init__(
        self, services: Services, desk: Desk, recording: Recording, watermark: datetime | None, keep: Keep
    ) -> None:
        self._services = services
        self._desk = desk
        self._recording = recording
        self._watermark = watermark
        self._keep_claim = keep
        self._rid = rid(recording.id)
        self._day = utc_date(recording.started_at)
        now = services.clock.now()
        self._promise = promised(services.settings.retention, desk.source.name, recording.call, now)
        self._lock = self._promise.lock(now) if self._promise else None
        self._holding = Holding(services, desk.source.name, recording.id, recording.call)
        self._seen: list[str] = []  # SHA-256 of each complete but doubtful download
        self._evidence = False  # whether this try may end in quarantine

    async def attempt(self) -> Outcome:
        """Make one try. Retry (NotAudio, Doubtful) when another is worth it, else the errors of `worker.errors`."""
        source = self._desk.source
        stream = await self._desk.vendor.open_media(self._recording)
        try:
            reached(Step.OPENED)
            declared = stream.declared_length
            self._refuse_too_large(declared or 0)
            head = await stream.peek()
            kind = self._kind(head, stream)
            media_key = self._services.keys.media(source.name, self._day, self._rid, kind.ext)
            twin = await self._quarantine_key(kind) if self._evidence else None
            part = self._services.settings.runtime.part_bytes
            store, asked = self._services.store, self._holding.wanted
            async with Draft(store, media_key, kind.content_type, part, twin, self._lock, asked) as draft:
                async for chunk in stream.chunks():
                    self._refuse_too_large(draft.size + len(chunk))
                    with self._desk.gate.excused():
                        await draft.feed(chunk)
                await stream.aclose()  # the source's slot is free while we write
                warnings = ("the phone system sent it compressed; archived decompressed",) if stream.compressed else ()
                return await self._settle(_Received(draft, kind, head, warnings, stream.framed), twin)
        finally:
            await stream.aclose()

    def _refuse_too_large(self, size: int) -> None:
        limit = self._desk.source.max_recording_bytes
        if size > limit:
            raise GiveUp(f"{size} bytes or more; max_recording_bytes is {limit}", GapReason.TOO_LARGE)

    def _kind(self, head: bytes, stream: MediaStream) -> AudioType:
        if not head:
            raise NotAudio("the body is empty", GapReason.EMPTY)
        kind = sniff(head)
        if kind is None:
            said = self._desk.rest.clean(head.decode("utf-8", "replace"))[:80]
            sent = self._desk.rest.clean(stream.content_type)
            raise NotAudio(f"not audio but text, sent as {sent or 'nothing'}: {said}", GapReason.NOT_AUDIO)
        return kind

    async def _settle(self, received: _Received, twin: str | None) -> Outcome:
        """Everything came: verify, then publish or quarantine."""
        reached(Step.RECEIVED)
        sha256 = received.draft.sha256
        verdict = compare_hash(self._recording.claimed_hash, sha256)
        strict = getattr(self._desk.source.options, "on_hash_mismatch", "quarantine") == "quarantine"
        if verdict.verdict is Verdict.DIFFERS and strict:
            log.error(
                Event.HASH_MISMATCH,
                source=self._desk.source.name,
                recording=self._recording.id,
                ours=sha256,
                vendors=verdict.value,
            )
            detail = f"SHA-256 of what came is {sha256}, the vendor says {verdict.value}"
            raise await self._doubt(received, twin, detail, GapReason.HASH_MISMATCH)
        warnings = [*received.warnings, *self._recording.notes, *self._warnings(received, verdict)]
        if not received.framed and not self._proven(received, verdict):
            self._refuse_cut(received)
            if sha256 not in self._seen:
                self._seen.append(sha256)
                raise Doubtful("the body had neither a length nor an end mark; a second download must agree")
            warnings.append("the body had neither a length nor an end mark; two downloads agreed")
        reached(Step.VERIFIED)
        await self._keep_claim()
        try:
            written, held = await received.draft.publish(received.draft.key, {"sha256": sha256}), received.draft.held
        except AlreadyExists:
            written, held = await self._adopt(received, twin), False
        reached(Step.MEDIA_WRITTEN)
        return await self._commit(received, verdict, written, warnings, held=held)

    def _proven(self, received: _Received, verdict: VendorHashFacts) -> bool:
        size = received.draft.size
        return verdict.verdict is Verdict.MATCH or size in (self._recording.expected_bytes, riff_length(received.head))

    def _refuse_cut(self, received: _Received) -> None:
        """Truncated where a body without an end mark is too short: a second, equal cut would prove nothing."""
        size = received.draft.size
        for told, length in (
            ("the WAV header", riff_length(received.head)),
            ("the phone system", self._recording.expected_bytes),
        ):
            if length is not None and length > size + 1:  # some recorders leave out the padding byte
                raise Truncated(f"{size} bytes came without a length or an end mark, {told} announces {length}")

    def _warnings(self, received: _Received, verdict: VendorHashFacts) -> list[str]:
        size, found = received.draft.size, []
        if verdict.verdict is Verdict.DIFFERS:
            found.append("the vendor's hash differs; archived because on_hash_mismatch is warn")
        if verdict.verdict is Verdict.UNRECOGNISED:
            found.append("the vendor's hash is in an unknown form and was not compared")
        if warning := size_warning(self._recording, size):
            found.append(warning)
        if received.kind.ext == "bin":
            found.append("the bytes are of no audio format that is known here")
        if received.kind.ext == "wav" and size <= WAV_HEADER:
            found.append("the audio is only a header, without any sound")
        declared = riff_length(received.head)
        if declared is not None and declared > size + 1:  # some recorders leave out the padding byte
            found.append(f"the WAV header announces {declared} bytes, the file has {size}")
        return found

    async def _adopt(self, received: _Received, twin: str | None) -> Written:
        """The media key is taken: by the same bytes (an earlier try of ours), or by others (an incident)."""
        key, draft = received.draft.key, received.draft
        there = await self._services.store.head(key)
        if there is None:
            raise Retry(f"{key} was there and is gone again")
        if there.bytes == draft.size:
            try:
                sha256 = there.metadata.get("sha256") or await self._services.store.sha256(key)
            except ObjectMissing as error:
                raise Retry(f"{key} was there and is gone again") from error
            if sha256 == draft.sha256:
                return Written(key, there.bytes, there.version_id, await self._relocked(key, there.version_id))
        log.error(Event.CONFLICT, source=self._desk.source.name, recording=self._recording.id, key=key)
        detail = (
            f"{key} holds {there.bytes} other bytes than the {draft.size} with SHA-256 {draft.sha256} that came now"
        )
        raise await self._doubt(received, twin, detail, GapReason.CONFLICT)

    async def _relocked(self, key: str, version_id: str | None) -> Lock | None:
        """Have what an earlier try wrote carry the lock that is promised now; what it carries is never shortened."""
        if self._promise is None:
            return None
        try:
            if self._lock is None:  # the promise is over; a longer one may have been made before
                found = (await self._services.store.protection(key, version_id)).lock
                return found if found is not None and found.lasts(self._services.clock.now()) else None
            return await self._services.store.extend_lock(key, version_id, self._lock)
        except ObjectMissing as error:
            raise Retry(f"{key} was there and is gone again") from error

    async def _settle_hold(self, versions: list[tuple[str, str | None]], *, held: bool) -> bool:
        """Have versions be under a legal hold or not, as the matters say by now; of an earlier try's none is lifted."""
        try:
            return await self._holding.settle(versions, held=held)
        except ObjectMissing as error:
            raise Retry(f"{versions[0][0]} was there and is gone again") from error

    async def _doubt(self, received: _Received, twin: str | None, detail: str, reason: GapReason) -> SourceError:
        """At first ask for another download; the second time keep the bytes. The caller raises what this returns."""
        if not self._evidence:
            self._evidence = True
            return Doubtful(detail)
        key = twin or await self._quarantine_key(received.kind)
        await self._keep_claim()
        try:
            written = await received.draft.publish(key, {"sha256": received.draft.sha256})
        except AlreadyExists as error:  # another worker took the number just now
            return Retry(f"{detail}; {error}")
        await self._settle_hold([(written.key, written.version_id)], held=received.draft.held)
        reached(Step.QUARANTINED)
        log.error(Event.QUARANTINED, source=self._desk.source.name, recording=self._recording.id, key=written.key)
        return GiveUp(f"{detail}; kept as {written.key}", reason)

    async def _quarantine_key(self, kind: AudioType) -> str:
        keys, source = self._services.keys, self._desk.source.name
        prefix = keys.partition("quarantine", source, self._day) + f"{self._rid}."
        taken = [found.key[len(prefix) :].partition(".")[0] async for found in self._services.store.objects(prefix)]
        number = max([int(n) for n in taken if _NUMBER.fullmatch(n)], default=0) + 1
        return keys.quarantine(source, self._day, self._rid, number, kind.ext)

    async def _commit(
        self, received: _Received, verdict: VendorHashFacts, written: Written, warnings: list[str], *, held: bool
    ) -> Outcome:
        """Write the sidecar, create-only: from here on the recording is held. `held` is the media's legal hold."""
        source, recording = self._desk.source, self._recording
        media = (written.key, written.version_id)
        held = await self._settle_hold([media], held=held)
        sidecar = Sidecar(
            source=source.name,
            vendor=source.vendor,
            recording_id=recording.id,
            call=recording.call,
            media=MediaFacts(
                key=written.key,
                version_id=written.version_id,
                content_type=received.kind.content_type,
                bytes=received.draft.size,
                sha256=received.draft.sha256,
                vendor_hash=verdict,
                warnings=tuple(warnings),
            ),
            archive=self._archive_facts(written.lock, held=held),
            vendor_record=recording.record,
        )
        body = canonical(sidecar)
        key = self._services.keys.sidecar(source.name, self._day, self._rid)
        metadata = {WATERMARK: self._watermark.isoformat()} if self._watermark else {}
        lock = self._lock.joined(written.lock) if self._lock else written.lock
        await self._keep_claim()
        try:
            sidecar_written = await self._services.store.put(
                key,
                body,
                sha256=hashlib.sha256(body).hexdigest(),
                content_type="application/json",
                metadata=metadata,
                lock=lock,
                legal_hold=held,
            )
        except AlreadyExists:
            pass
        else:
            await self._holding.settle_late([media, (key, sidecar_written.version_id)], held=held)
            reached(Step.SIDECAR_WRITTEN)
            return Outcome(recording.id, Fate.ARCHIVED, bytes=received.draft.size)
        try:
            before = Sidecar.model_validate_json(await self._services.store.get(key, max_bytes=_MAX_SIDECAR))
        except (ValueError, IntegrityError):  # somebody else's object, which is not ours to replace
            pass
        else:
            if before.media.sha256 == sidecar.media.sha256:
                await self._relocked(key, None)
                await self._settle_hold([(key, None), media], held=False)
                return Outcome(recording.id, Fate.HELD)
        log.error(Event.CONFLICT, source=source.name, recording=recording.id, key=key)
        raise await self._doubt(received, None, f"{key} describes other bytes", GapReason.CONFLICT)

    def _archive_facts(self, lock: Lock | None, *, held: bool) -> ArchiveFacts:
        """Say how it was archived, and freeze what was promised; where the media's own lock is longer, that counts."""
        now, by = self._services.clock.now(), f"callvault {VERSION}"
        if self._promise is None:
            return ArchiveFacts(archived_at=now, archived_by=by, legal_hold=held)
        return ArchiveFacts(
            archived_at=now,
            archived_by=by,
            legal_hold=held,
            retain_until=max(self._promise.until, lock.until) if lock else self._promise.until,
            lock_mode=lock.mode if lock else None,
            retention=self._promise.facts,
        )
