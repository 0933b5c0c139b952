"""The manifest: which segments make up the log, what its store has seen of it, and which losses were accepted."""

from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from replayforge.forgelog.atomic import NotWhole, read_whole, replace_file, seal, unseal
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.errors import NEWER, LogRefused
from replayforge.forgelog.files import Files

MANIFEST_NAME = "MANIFEST"
FORMAT = 1
REBUILD = "Run `replayforge log repair --rebuild-manifest` to make it anew from the segments."


class Manifest(Struct, frozen=True):
    """The log's own knowledge of itself; replaced whole, never edited."""

    log_id: str
    first_segment: int = 1
    last_segment: int = 0
    last_offset: int = 0  # durable when this was written: a floor for recovery
    store_id: str | None = None
    projected_offset: int = 0
    gaps: tuple[tuple[int, int], ...] = ()  # losses the operator accepted
    lost_segments: tuple[int, ...] = ()  # segments whose loss the operator accepted

    def gap_at(self, offset: int) -> tuple[int, int] | None:
        """Return the accepted loss that covers `offset`, if one does."""
        for first, last in self.gaps:
            if first <= offset <= last:
                return first, last
        return None

    def covers(self, first: int, last: int) -> bool:
        """Tell whether the loss of all these offsets was accepted; true of none, when `last` is below `first`."""
        accepted = self.gap_at(first)
        return last < first or (accepted is not None and accepted[1] >= last)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest file."""
    return seal({"format": FORMAT, **asdict(manifest)})


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest file; raises LogRefused when it is damaged or of a later format."""
    try:
        content = unseal(data)
    except NotWhole as error:
        raise LogRefused("E_MANIFEST", str(error), segment=MANIFEST_NAME, remedy=REBUILD) from None
    if content.pop("format") != FORMAT:
        raise LogRefused("E_VERSION", "it was written by a later version.", segment=MANIFEST_NAME, remedy=NEWER)
    content["gaps"] = tuple((first, last) for first, last in content["gaps"])
    content["lost_segments"] = tuple(content["lost_segments"])
    return Manifest(**content)


def load_manifest(files: Files, directory: Path) -> Manifest:
    """Read the manifest of a log directory; raises LogRefused when it is not a readable manifest."""
    path = directory / MANIFEST_NAME
    try:
        if not files.is_regular(path):
            raise LogRefused("E_NOT_A_FILE", "it is not a regular file.", segment=MANIFEST_NAME, remedy=REBUILD)
        return decode_manifest(read_whole(files, path))
    except OSError as error:
        raise LogRefused("E_IO", f"it cannot be read ({error}).", segment=MANIFEST_NAME) from error


def save_manifest(disk: Disk, directory: Path, manifest: Manifest) -> None:
    """Replace the manifest; durable when it returns."""
    replace_file(disk, directory / MANIFEST_NAME, encode_manifest(manifest))
