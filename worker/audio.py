"""What the bytes of a recording are, whatever a header says. Pure functions on the first 512 bytes.

Unknown bytes are archived as they are, as `bin`; documents and plain text are refused by the caller. What an
error document means is the connector's business, not decided here.
"""

from dataclasses import dataclass

from worker.rest.decode import looks_like_a_document

_GSM_FRAME = 33  # bytes; each frame of GSM 06.10 begins with the nibble 0xD (RFC 3551, 4.5.8.1)
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\r\n\f\x1b")
WAV_HEADER = 44
"""Bytes of the usual WAV header: a file of this size or less holds no sound."""


@dataclass(frozen=True, slots=True)
class AudioType:
    """How a kind of audio is called in keys and headers."""

    ext: str
    content_type: str


WAV = AudioType("wav", "audio/wav")
MP3 = AudioType("mp3", "audio/mpeg")
OGG = AudioType("ogg", "audio/ogg")
OPUS = AudioType("opus", "audio/ogg")
FLAC = AudioType("flac", "audio/flac")
M4A = AudioType("m4a", "audio/mp4")
WEBM = AudioType("webm", "audio/webm")
GSM = AudioType("gsm", "audio/x-gsm")
UNKNOWN = AudioType("bin", "application/octet-stream")


def sniff(head: bytes) -> AudioType | None:
    """Return the type of audio that begins with `head`, `UNKNOWN` for binary data, None for text of any kind."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return WAV
    if head.startswith(b"ID3") or _is_mpeg_frame(head):
        return MP3
    if head.startswith(b"OggS"):
        return OPUS if b"OpusHead" in head[:64] else OGG
    if head.startswith(b"fLaC"):
        return FLAC
    if head[4:8] == b"ftyp":
        return M4A
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM
    if looks_like_a_document(head) or all(byte in _TEXT for byte in head):
        return None
    frames = head[::_GSM_FRAME]
    if len(head) >= 2 * _GSM_FRAME and all(byte >> 4 == 0xD for byte in frames):
        return GSM
    return UNKNOWN


def _is_mpeg_frame(head: bytes) -> bool:
    """Tell whether `head` begins with a valid MPEG audio layer III frame header (ISO 11172-3, 2.4.1.3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    layer_3 = head[1] & 0x06 == 0x02
    reserved_version = head[1] & 0x18 == 0x08
    return layer_3 and not reserved_version and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C


def riff_length(head: bytes) -> int | None:
    """Return how many bytes a RIFF file says it has; None for others, and for recorders that never filled it in."""
    if head[:4] != b"RIFF" or len(head) < 8:
        return None
    declared = int.from_bytes(head[4:8], "little")
    return declared + 8 if 0 < declared < 0xFFFFFFFF else None
