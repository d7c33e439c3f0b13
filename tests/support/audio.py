"""Small real audio: WAV files of any length, and an MP3 frame sequence, made here and different for each seed."""

import random
import struct


def wav(seconds: float = 0.5, seed: int = 0, rate: int = 8000) -> bytes:
    """Return a mono 8 kHz A-law WAV whose samples depend on the seed."""
    samples = random.Random(seed).randbytes(int(seconds * rate))
    fmt = struct.pack("<HHIIHH", 6, 1, rate, rate, 1, 8)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(samples)) + samples
    if len(samples) % 2:
        body += b"\x00"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def header_only_wav() -> bytes:
    """Return the 44 bytes of a WAV that holds no sample."""
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    return b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", 0)


def mp3(frames: int = 20, seed: int = 0) -> bytes:
    """Return an ID3 tag and MPEG-2 layer III frames (24 kbit/s, 16 kHz, 108 bytes each) of noise."""
    noise = random.Random(seed)
    frame = b"\xff\xf3\x38\xc4"
    return b"ID3\x03\x00\x00\x00\x00\x00\x00" + b"".join(frame + noise.randbytes(104) for _ in range(frames))
