"""Byte strings over a pipe, each after its length."""

from __future__ import annotations

from typing import IO

__all__ = ["read_frame", "write_frame"]


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Writes eight bytes of length, then the content."""
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)


def read_frame(stream: IO[bytes]) -> bytes:
    """The next byte string.

    Raises:
        EOFError: the stream ended.

    Example:
        >>> from io import BytesIO
        >>> stream = BytesIO()
        >>> write_frame(stream, b"entropy")
        >>> _ = stream.seek(0)
        >>> read_frame(stream)
        b'entropy'
    """
    return _exactly(stream, int.from_bytes(_exactly(stream, 8), "little"))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("the stream ended inside a frame")
    return content
