"""Opens what lies outside the process: the data directory, the log, the store, the stream."""

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from replayforge.config import Config
from replayforge.daemon_log import listen_to
from replayforge.domain.clock import Clock, SystemClock
from replayforge.domain.errors import Refused
from replayforge.engine.care.store_identity import StoreIdentity, check_course, check_log, check_store
from replayforge.forgelog.atomic import replace_file
from replayforge.forgelog.disk import Disk
from replayforge.forgelog.files import OsFiles, make_private_directory
from replayforge.forgelog.limits import Limits
from replayforge.forgelog.log import ForgeLog, LogOptions, read_identity
from replayforge.stores.store import Store
from replayforge.streams.embedded_stream import EmbeddedStream
from replayforge.streams.stream import Stream
from replayforge.telemetry import Telemetry
from replayforge.threads import in_thread

LOG_ID_NAME = "log_id"
NODE_NAME = "node"
COMPARED_RECORDS = 10  # of the newest rows with their records: copies of a log that went on apart differ in all
ENVELOPE_BYTES_MAX = 16_384  # what a record holds beside the body that came in


@contextlib.asynccontextmanager
async def opened_for_check(config: Config) -> AsyncIterator[tuple[ForgeLog, Store]]:
    """Open log and store as a daemon would, but run nothing; raises Refused while a daemon has them."""
    directory = known_directory(Path(config.data_dir))
    clock, telemetry = SystemClock(), Telemetry()
    async with contextlib.AsyncExitStack() as stack:
        store = await Store.open(config.store.url, node=node_name(directory), owner="check")
        stack.push_async_callback(store.close)
        log = await open_log(config, store, clock, telemetry, adopt_store=False)
        stack.push_async_callback(log.close)
        yield log, store


async def open_log(config: Config, store: Store, clock: Clock, telemetry: Telemetry, adopt_store: bool) -> ForgeLog:
    """Open the log after holding it against the store and the data directory; the store's cursor is a floor for it."""
    found = await store_identity(config, store, clock)
    given_up = check_log(found, adopt=adopt_store)
    log = await in_thread(
        ForgeLog.open, found.directory, options=log_options(config), floor=found.cursor or 0, clock=clock,
        telemetry=telemetry,
    )  # fmt: skip
    try:
        if found.identity is not None:
            # The manifest may be older than the last records; only now is known where the log ends.
            opened = replace(found, identity=replace(found.identity, last_offset=log.durable_offset))
            given_up += check_store(opened, adopt=adopt_store)
    except BaseException:
        await log.close()
        raise
    for sentence in given_up:
        telemetry.emit("store.adopted", accepted=sentence)
    return log


async def check_copies(log: ForgeLog, store: Store, telemetry: Telemetry, adopt_store: bool) -> None:
    """Raise Refused when the store's rows came from another copy of the log, which a second daemon ran on."""
    newest = await store.newest_of_log(log.log_id, COMPARED_RECORDS)
    cursor_now = await store.cursor(log.log_id)
    given_up = await in_thread(check_course, log, newest, cursor_now[0] if cursor_now else 0, adopt=adopt_store)
    for sentence in given_up:
        telemetry.emit("store.adopted", accepted=sentence)


async def store_identity(config: Config, store: Store, clock: Clock) -> StoreIdentity:
    """Ask the log, the store and the data directory what they know of each other."""
    directory = Path(config.log.dir)
    cursors, _ = await store.ledger_snapshot()
    return StoreIdentity(
        node=store.node,
        directory=directory,
        identity=read_identity(directory),
        remembered_log_id=remembered_log_id(Path(config.data_dir)),
        store_id=store.store_id,
        shared=store.shared,
        cursors=cursors,
        nodes=await store.nodes(clock.now_us()),
    )


def log_options(config: Config) -> LogOptions:
    """Return how the log is kept."""
    return LogOptions(
        segment_bytes=config.log.segment_bytes,
        retention_seconds=config.log.retention_seconds or None,
        retention_bytes_max=config.log.retention_bytes_max or None,
        append_queue_bytes_max=config.log.append_queue_bytes_max,
        allow_network_fs=config.log.allow_network_fs,
        limits=Limits(payload_bytes_max=config.server.event_bytes_max + ENVELOPE_BYTES_MAX),
    )


def open_stream(config: Config, store_id: str, node: str, telemetry: Telemetry) -> Stream:
    """Return the stream that the configuration names."""
    wanted = config.stream.backend
    if wanted == "embedded" or (wanted == "auto" and not config.redis.url):
        return EmbeddedStream(telemetry, entries_max=config.stream.entries_max)
    from replayforge.streams.redis_stream import RedisStream  # who has no Redis need not wait for its library

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
        make_private_directory(directory)
        probe = directory / "writable.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Refused(f"The data directory {directory} cannot be written: {error.strerror}.") from None
    return directory


def known_directory(directory: Path) -> Path:
    """Return the directory if a daemon has used it; raises Refused if not, for what is empty proves nothing."""
    if not directory.is_dir():
        raise Refused(f"There is no data directory {directory}; name it with --data-dir.")
    if not (directory / NODE_NAME).exists():
        raise Refused(f"No daemon has ever run on the directory {directory}; name its own with --data-dir.")
    return directory


def node_name(directory: Path) -> str:
    """Return the name this data directory goes by among daemons; made once and kept."""
    path = directory / NODE_NAME
    if not path.exists():
        keep(path, f"{socket.gethostname().replace('/', '-')[:40]}-{secrets.token_hex(3)}")
    name = path.read_bytes().decode(errors="replace").strip()
    if not name.isprintable() or "\ufffd" in name or not name:
        raise Refused(f"The file {path} should hold the name of this node, and holds something else. Restore it.")
    return name


def remembered_log_id(directory: Path) -> str | None:
    """Return the id of the log that this data directory had last, wherever that log lies; None at the first start."""
    path = directory / LOG_ID_NAME
    return (path.read_text().strip() or None) if path.exists() else None


def remember_log_id(directory: Path, log_id: str) -> None:
    """Note which log this data directory has; durable when it returns, so that no log is begun anew unnoticed."""
    if remembered_log_id(directory) != log_id:
        keep(directory / LOG_ID_NAME, log_id)


def keep(path: Path, line: str) -> None:
    """Write a file of one line, for this user alone, that is whole and durable when this returns."""
    replace_file(Disk(OsFiles(), SystemClock()), path, f"{line}\n".encode())


def logging_telemetry() -> Telemetry:
    """Return telemetry that is written to the log output."""
    telemetry = Telemetry()
    listen_to(telemetry)
    return telemetry
