import pytest

from tests.support.audio import header_only_wav, mp3, wav
from worker.audio import FLAC, GSM, M4A, MP3, OGG, OPUS, UNKNOWN, WAV, WEBM, riff_length, sniff


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (wav(), WAV),
        (header_only_wav(), WAV),
        (b"RF64\xff\xff\xff\xffWAVEds64", WAV),
        (mp3(), MP3),
        (b"\xff\xfb\x90\x64" + b"\x00" * 60, MP3),
        (b"OggS" + b"\x00" * 24 + b"OpusHead", OPUS),
        (b"OggS" + b"\x00" * 24 + b"Speex   ", OGG),
        (b"fLaC\x00\x00\x00\x22", FLAC),
        (b"\x00\x00\x00\x20ftypM4A ", M4A),
        (b"\x1a\x45\xdf\xa3\x01", WEBM),
        ((b"\xd5" + b"\x01" * 32) * 4, GSM),
        (b"\xd5" + b"\x01" * 32, UNKNOWN),
        (b"\xff\xe0", UNKNOWN),
        (b"\xff\xeb\x90\x64", UNKNOWN),
        (b"\x00\x01\x02\x03" * 20, UNKNOWN),
        (b"<html><body>Sign in", None),
        (b'\xef\xbb\xbf <?xml version="1.0"?>', None),
        (b'{"status":"Failed","errno":"20006"}', None),
        (b"recording not found\r\n", None),
    ],
)
def test_the_bytes_decide_what_a_recording_is(head: bytes, expected: object) -> None:
    """Signatures are recognised, text of any kind is refused, the rest is kept as unknown."""
    assert sniff(head[:512]) == expected


def test_a_riff_file_says_how_long_it_is() -> None:
    """The length in the header is that of the whole file; streams that never filled it in say nothing."""
    assert riff_length(wav(0.5)) == len(wav(0.5))
    assert riff_length(b"RIFF\xff\xff\xff\xffWAVE") is None
    assert riff_length(b"RIFF\x00\x00\x00\x00WAVE") is None
    assert riff_length(b"RIFF") is None
    assert riff_length(mp3()) is None
