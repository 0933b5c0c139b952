"""Which checksum a segment uses, and the fastest implementation at hand."""

import zlib
from collections.abc import Callable

import google_crc32c

# extend(0, data) is the checksum of data; extend(checksum(a), b) is the checksum of a followed by b.
Extend = Callable[[int, bytes], int]

CRC32C = 1
ZLIB_CRC32 = 2


def extend_zlib(checksum: int, data: bytes) -> int:
    """Go on with a zlib CRC-32."""
    return zlib.crc32(data, checksum)


EXTENDS: dict[int, Extend] = {CRC32C: google_crc32c.extend, ZLIB_CRC32: extend_zlib}


def preferred(implementation: str = google_crc32c.implementation) -> int:
    """Return the algorithm for new segments: CRC32C where it runs in hardware, else the one of zlib."""
    return ZLIB_CRC32 if implementation == "python" else CRC32C
