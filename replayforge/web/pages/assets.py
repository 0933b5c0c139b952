"""The static files: found in the wheel or in the checkout, read once, served under the hash of their content."""

import hashlib
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from aiohttp import web

from replayforge.web.http.problems import HttpProblem

FOR_EVER = "public, max-age=31536000, immutable"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is served."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """Every static file by its path, and one digest over all of them, so that modules may import each other."""

    by_path: dict[str, Asset]
    digest: str


ASSETS: web.AppKey[Assets] = web.AppKey("assets", Assets)


def load_assets(root: Traversable) -> Assets:
    """Read every file below `root`."""
    by_path = {path: Asset(body, content_type(path)) for path, body in sorted(walk(root, ""))}
    digest = hashlib.blake2b(digest_size=8)
    for path, asset in by_path.items():
        digest.update(b"%s\0%d\0%s" % (path.encode(), len(asset.body), asset.body))
    return Assets(by_path, digest.hexdigest())


def walk(directory: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file below a directory."""
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()


def content_type(path: str) -> str:
    """Return a file's media type; the common ones do not depend on the machine's tables."""
    suffix = Path(path).suffix
    return TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"


async def serve_asset(request: web.Request) -> web.Response:
    """Answer with a static file; under an older digest the current file, which is then not kept."""
    assets = request.config_dict[ASSETS]
    asset = assets.by_path.get(request.match_info["path"])
    if asset is None:
        raise HttpProblem("not-found", f"There is no file {request.path}.")
    current = request.match_info["digest"] == assets.digest
    headers = {"Cache-Control": FOR_EVER if current else "no-cache"}
    charset = "utf-8" if asset.content_type.startswith("text/") else None
    return web.Response(body=asset.body, content_type=asset.content_type, charset=charset, headers=headers)
