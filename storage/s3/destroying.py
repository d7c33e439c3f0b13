"""One version destroyed for good, or the reason why it stays. Locks and holds themselves are `storage.s3.locking`.

No request asks to bypass a lock, and none goes without a version: S3 would hide the object behind a delete marker
and say that it is deleted, while every byte of it is there.
"""

from storage.errors import ObjectMissing, StoreError, StoreRefused, VersionLocked
from storage.s3.answers import Answer
from storage.s3.locking import in_words, standing
from storage.s3.refusals import Operation, explain
from storage.s3.transport import Request, Transport

NULL = "null"
"""S3's word for the version of what was written while the bucket kept none."""

_REFUSALS = frozenset({400, 403, 404, 409})  # stores disagree on which of them means a lock
_GONE = frozenset({"NoSuchKey", "NoSuchVersion"})  # S3 itself says 204


async def destroy(transport: Transport, key: str, version_id: str | None) -> None:
    """Delete exactly one version, `NULL` where that is None. Gone already is well.

    VersionLocked where a lock or a legal hold is why it stays; StoreRefused where a right is missing, or where the
    store hid the object instead.
    """
    version_id = version_id or NULL
    request = Request("DELETE", Operation.DELETE_VERSION, key, {"versionId": version_id})
    answer = await transport.call(request, expected=_REFUSALS)
    if not answer.ok and answer.code not in _GONE:
        refusal = explain(answer, Operation.DELETE_VERSION, key, transport.address)
        raise await _locked(transport, key, version_id, answer, refusal) or refusal
    touched = answer.headers.get("x-amz-version-id", "")
    if touched not in ("", version_id):
        raise StoreRefused(
            f"{key}: version {version_id} was to be destroyed and the store made version {touched[:80]} instead, a"
            " delete marker: nothing is destroyed. This store does not delete versions",
            key,
        )


async def _locked(
    transport: Transport, key: str, version_id: str, answer: Answer, refusal: StoreError
) -> VersionLocked | None:
    """Ask why a deletion was refused, since a lock and a missing right are told with the same words."""
    try:
        found = await standing(transport, key, None if version_id == NULL else version_id)
    except (ObjectMissing, StoreRefused):  # a delete marker, or nobody may ask: what was refused is said
        return None
    if not found.forbids(answer.date or answer.sent_at):  # by the store's own clock, which is the one that counts
        return None
    return VersionLocked(f"{key} (version {version_id}) stays, under {in_words(found)}: {refusal.message}", key)
