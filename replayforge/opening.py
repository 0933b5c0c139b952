"""Opens what lies outside the process: the data directory, the log, the store, the stream."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from replayforge.config import Config
from replayforge.domain.clock import Clock, SystemClock
from replayforge.domain.errors import Refused
from replayforge.engine.recovery import check_acquaintance, check_log_is_there
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.log import ForgeLog, LogOptions, read_identity
from replayforge.stores.store import Store
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.streams.redis_stream import RedisStream
from replayforge.streams.stream import Stream
from replayforge.telemetry import Telemetry, log_listener

ENVELOPE_BYTES_MAX = 16_384  # what a record holds beside the body that came in


@contextlib.asynccontextmanager
async def opened_for_check(config: Config) -> AsyncIterator[tuple[ForgeLog, Store]]:
    """Open log and store as a daemon would, but run nothing; raises Refused while a daemon has them."""
    directory = existing_directory(Path(config.data_dir))
    clock, telemetry = SystemClock(), Telemetry()
    async with contextlib.AsyncExitStack() as stack:
        store = await Store.open(config.store.url, node=node_name(directory), owner="check")
        stack.push_async_callback(store.close)
        log = await open_log(config, store, clock, telemetry, adopt_store=False)
        stack.push_async_callback(log.close)
        yield log, store


async def open_log(config: Config, store: Store, clock: Clock, telemetry: Telemetry, adopt_store: bool) -> ForgeLog:
    """Open the log after holding it against the store, whose cursor is a floor that the log must reach."""
    directory = Path(config.log.dir)
    identity = read_identity(directory)
    standing = await store.cursor(identity.log_id) if identity else None
    cursor = standing[0] if standing else None
    check_acquaintance(identity, store.store_id, cursor, adopt=adopt_store)
    if identity is None and store.driver.dialect == "sqlite" and not adopt_store:
        cursors, _ = await store.books()
        check_log_is_there(directory, cursors)
    options = LogOptions(
        segment_bytes=config.log.segment_bytes,
        retention_seconds=config.log.retention_seconds or None,
        retention_bytes_max=config.log.retention_bytes_max or None,
        append_queue_bytes_max=config.log.append_queue_bytes_max,
        limits=Limits(payload_bytes_max=config.server.event_bytes_max + ENVELOPE_BYTES_MAX),
    )
    return await asyncio.to_thread(
        ForgeLog.open, directory, options=options, floor=cursor or 0, clock=clock, telemetry=telemetry
    )


def open_stream(config: Config, store_id: str, node: str, telemetry: Telemetry) -> Stream:
    """Return the stream that the configuration names."""
    wanted = config.stream.backend
    if wanted == "embedded" or (wanted == "auto" and not config.redis.url):
        return EmbeddedStream(telemetry, entries_max=config.stream.entries_max)
    return RedisStream(
        config.redis.url,
        store_id=store_id,
        node=node,
        telemetry=telemetry,
        stream_key=config.redis.stream,
        group=config.redis.group,
        entries_max=config.stream.entries_max,
    )


def make_directory(directory: Path) -> Path:
    """Make the data directory for the daemon's eyes only; raises Refused when it cannot be written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / "writable.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Refused(f"The data directory {directory} cannot be written: {error.strerror}.") from None
    return directory


def existing_directory(directory: Path) -> Path:
    """Return the directory if it is there; raises Refused if not."""
    if not directory.is_dir():
        raise Refused(f"There is no data directory {directory}; name it with --data-dir.")
    return directory


def node_name(directory: Path) -> str:
    """Return the name this data directory goes by among daemons; made once and kept."""
    path = directory / "node"
    if not path.exists():
        path.write_text(f"{socket.gethostname().replace('/', '-')[:40]}-{secrets.token_hex(3)}\n")
    return path.read_text().strip()


def logging_telemetry() -> Telemetry:
    """Return telemetry that is written to the log output."""
    telemetry = Telemetry()
    telemetry.listeners.append(log_listener())
    return telemetry
