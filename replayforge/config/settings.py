"""Every setting with its type, its range and its default."""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from replayforge.domain.lane import ENVELOPE_KEYS, LaneRules, rules_for

MEBIBYTE = 1 << 20
DAY_SECONDS = 86_400
DECADE_SECONDS = 3650 * DAY_SECONDS

STORE_URL = r"^(sqlite:///.+|postgres(ql)?(\+[a-z0-9]+)?://.+|sqlite\+[a-z0-9]+:///.+)$"
REDIS_URL = r"^((rediss?|unix|rediss?\+sentinel)://.+)?$"
LANE_KEY = rf"^({'|'.join(ENVELOPE_KEYS)}|payload(\.[^.\s]+)+)$"
CRASH_POINT = r"^[A-Za-z0-9._-]+(:[1-9][0-9]*)?$"

SHORT_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$(?!\n)"

EventName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
Port = Annotated[int, Meta(ge=0, le=65_535, description="a whole number from 0 to 65535")]
Count = Annotated[int, Meta(ge=1, le=1 << 40, description="a whole number, 1 or more")]
Number = Annotated[int, Meta(ge=0, le=1 << 40, description="a whole number, 0 or more")]
Size = Annotated[int, Meta(ge=0, le=1 << 60, description="a number of bytes, 0 or more")]
EventSize = Annotated[int, Meta(ge=1024, le=15 * MEBIBYTE, description="a number of bytes from 1 KiB to 15 MiB")]
SegmentSize = Annotated[int, Meta(ge=16 * MEBIBYTE, le=1 << 30, description="a number of bytes from 16 MiB to 1 GiB")]
Seconds = Annotated[float, Meta(gt=0, le=DECADE_SECONDS, description="a number of seconds above 0")]
Age = Annotated[float, Meta(ge=0, le=DECADE_SECONDS, description="a number of seconds, or 0 for no limit")]
Share = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
Factor = Annotated[float, Meta(ge=1, le=1000, description="a number from 1 to 1000")]
Name = Annotated[str, Meta(pattern=r"^\S+$", description="a name without spaces")]
PublicUrl = Annotated[
    str, Meta(pattern=r"^(https?://[^/\s]+)?$", description='empty, or an address such as "https://events.example.com"')
]
UrlPath = Annotated[str, Meta(pattern=r"^(/[^/\s]+)*$", description='empty, or a path such as "/replayforge"')]
StoreUrl = Annotated[str, Meta(pattern=STORE_URL, description="sqlite:///FILE or postgresql://HOST/DATABASE")]
RedisUrl = Annotated[
    str, Meta(pattern=REDIS_URL, description="empty, or redis://, rediss:// or unix:// with an address")
]
Texts = Annotated[tuple[str, ...], Meta(description="a list of texts")]
ApiKeys = Annotated[
    tuple[Annotated[str, Meta(pattern=r"^[\x21-\x7e]+$(?!\n)")], ...],
    Meta(description="a list of keys, NAME:ROLE:sha256-DIGEST or visible ASCII characters without spaces, none empty"),
]
CrashPoints = Annotated[
    tuple[Annotated[str, Meta(pattern=CRASH_POINT)], ...],
    Meta(description='a list of crash points, each "POINT" or "POINT:N"'),
]


class ServerConfig(Struct, frozen=True):
    """Where the daemon listens, who may speak to it, and how much at once."""

    host: Name = "127.0.0.1"
    port: Port = 8787
    api_keys: ApiKeys = ()
    allowed_hosts: Texts = ()
    event_bytes_max: EventSize = MEBIBYTE
    bulk_bytes_max: Size = 32 * MEBIBYTE
    bulk_events_max: Count = 1000
    bodies_bytes_max: Size = 256 * MEBIBYTE
    connections_per_address_max: Count = 1000
    base_path: UrlPath = ""
    public_url: PublicUrl = ""
    masked_names: Texts = (
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "private_key",
        "authorization",
        "cookie",
        "card_number",
        "cvc",
        "cvv",
        "iban",
    )


class LogConfig(Struct, frozen=True):
    """ForgeLog on disk. Once loaded, `dir` is never empty."""

    dir: str = ""
    segment_bytes: SegmentSize = 64 * MEBIBYTE
    retention_seconds: Age = 7 * DAY_SECONDS
    retention_bytes_max: Size = 0
    append_queue_bytes_max: Size = 32 * MEBIBYTE
    disk_free_bytes_min: Size = 128 * MEBIBYTE
    allow_network_fs: bool = False


class IngestConfig(Struct, frozen=True):
    """When an event is acknowledged, and how many may wait for their rows."""

    ack: Literal["log", "stored"] = "log"
    backlog_events_max: Count = 250_000


class StreamConfig(Struct, frozen=True):
    """Which stream carries the entries. Once loaded, `backend` is never "forgelog", its old name."""

    backend: Literal["auto", "redis", "embedded", "forgelog"] = "auto"
    entries_max: Count = 10_000


class RedisConfig(Struct, frozen=True):
    """Which Redis, and what the keys and the consumer group are called there."""

    url: RedisUrl = ""
    stream: Name = "replayforge"
    group: Name = "replayforge"


class StoreConfig(Struct, frozen=True):
    """Which database. Once loaded, `url` is plain: {data_dir} is filled in and a "+driver" is taken off."""

    url: StoreUrl = "sqlite:///{data_dir}/store.db"

    @property
    def sqlite_path(self) -> Path | None:
        """The database file, or None when the store is not a SQLite file."""
        scheme, _, path = self.url.partition(":///")
        return Path(path) if scheme == "sqlite" else None


class WorkersConfig(Struct, frozen=True):
    """How many events run at once, and how long one may."""

    count: Annotated[int, Meta(ge=1, le=10_000, description="a whole number from 1 to 10000")] = 16
    lease_seconds: Seconds = 30.0
    heartbeat_seconds: Seconds = 10.0
    handler_timeout_seconds: Seconds = 60.0
    solo_seconds: Seconds = 1.0
    control_seconds: Seconds = 10.0


class RetryConfig(Struct, frozen=True):
    """When a failed attempt is tried again; handlers and events may say otherwise."""

    max_attempts: Count = 10
    base_seconds: Age = 2.0
    factor: Factor = 2.0
    max_seconds: Age = 900.0
    jitter: Share = 0.5


class JanitorConfig(Struct, frozen=True):
    """How often each chore is done."""

    promote_seconds: Seconds = 0.5
    sweep_seconds: Seconds = 5.0
    refill_seconds: Seconds = 1.0
    mirror_seconds: Seconds = 1.0
    stream_reclaim_seconds: Seconds = 15.0
    stream_idle_seconds: Seconds = 60.0
    retention_seconds: Seconds = 60.0
    disk_seconds: Seconds = 60.0
    metrics_seconds: Seconds = 5.0


class SupervisorConfig(Struct, frozen=True):
    """How many crashes of services are borne, and how long a stop may take."""

    restarts_max: Number = 5
    restart_window_seconds: Seconds = 60.0
    grace_seconds: Age = 25.0


class HttpEndpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """An HTTP address that handles the event types `match` names; one with a `name` subscribes to them."""

    match: Name
    url: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    secret: str = ""
    timeout_seconds: Seconds = 30.0
    allow_private: bool = False
    concurrency_max: Count | None = None
    breaker: bool = True
    steps: bool = False
    deadline_seconds: Seconds | None = None
    on_cancel: Literal["end", "run"] = "end"
    name: str = ""


class HandlersConfig(Struct, frozen=True):
    """What handles the events, Python modules or files and HTTP endpoints, and what handlers wait for."""

    modules: Texts = ()
    signals: Texts = ()
    http: Annotated[
        tuple[HttpEndpoint, ...],
        Meta(
            description="tables of match, url, secret, timeout_seconds, allow_private, concurrency_max, breaker, steps,"
            " deadline_seconds, on_cancel, name"
        ),
    ] = ()


class SourceConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where webhooks come from: the address is /in/NAME. What is left empty the preset brings."""

    name: Annotated[str, Meta(pattern=SHORT_NAME)]
    preset: Literal["github", "stripe", "shopify", "slack", "standard-webhooks", "twilio", "hmac", "basic", "none"]
    secrets: tuple[str, ...] = ()
    event_type: str = ""
    workflow: str = ""
    key: str = ""
    application: Annotated[str, Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    headers: tuple[str, ...] = ()
    rate: str = ""


class LaneConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The events of the types that `match` names, in lanes by a key: in order, so many at once, so fast."""

    match: Name
    key: Annotated[str, Meta(pattern=LANE_KEY)] = "workflow_id"
    order: Literal["none", "strict"] = "none"
    on_dead: Literal["block", "skip"] = "block"
    concurrency: Count | None = None
    rate: str | None = None
    fair: bool = True

    def rules(self) -> LaneRules:
        """Return what holds in these lanes; raises ValueError for what contradicts itself."""
        return rules_for(
            order=self.order, on_dead=self.on_dead, concurrency=self.concurrency, rate=self.rate, fair=self.fair
        )


class ScheduleConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """An event that is made again and again: by a cron expression in a time zone, or every so many seconds."""

    name: Annotated[str, Meta(pattern=SHORT_NAME)]
    event_type: EventName
    cron: str = ""
    every_seconds: Annotated[int, Meta(ge=1, le=DECADE_SECONDS)] | None = None
    timezone: str = "UTC"
    application: EventName = "default"
    workflow: Annotated[str, Meta(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    payload: dict[str, Any] = {}
    missed: Literal["last", "all", "skip"] = "last"
    overlap: Literal["queue", "skip"] = "queue"
    jitter_seconds: Age = 0.0


class AlertConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to tell when a condition begins to hold, and when it ends: an address, or a command."""

    name: Annotated[str, Meta(pattern=SHORT_NAME)]
    when: Literal[
        "dead_letters",
        "new_error_signature",
        "oldest_waiting",
        "held",
        "ledger_not_clean",
        "disk_low",
        "handler_paused",
    ]
    above_events: Number | None = None
    above_seconds: Age | None = None
    below_bytes: Size | None = None
    url: Annotated[str, Meta(pattern=r"^(https?://\S+)?$")] = ""
    secret: str = ""
    allow_private: bool = False
    command: tuple[str, ...] = ()
    timeout_seconds: Annotated[float, Meta(gt=0, le=60)] = 10.0


class RetentionConfig(Struct, frozen=True):
    """How long finished events stay in the store, and how long their keys are remembered beyond; 0 means for ever."""

    succeeded_seconds: Age = 7 * DAY_SECONDS
    dead_seconds: Age = 90 * DAY_SECONDS
    kept_seconds: Age = 0.0
    keys_seconds: Age = 90 * DAY_SECONDS


class JournalConfig(Struct, frozen=True):
    """How much the journal of one event may hold: its steps, their results, and all of it together."""

    result_bytes_max: Size = 262_144
    steps_max: Count = 10_000
    bytes_max: Size = 16 * MEBIBYTE


class DeployConfig(Struct, frozen=True):
    """What is done about open runs that changed code would not go on with, and which daemon goes on with a run."""

    gate: Literal["report", "hold", "off"] = "report"
    prefer_seconds: Seconds = 60.0


class ChaosConfig(Struct, frozen=True):
    """Simulated crashes: nothing here has an effect unless `enabled`."""

    enabled: bool = False
    fail_rate: Share = 0.0
    crash_rate: Share = 0.0
    exit_rate: Share = 0.0
    crash_at: CrashPoints = ()


class LoggingConfig(Struct, frozen=True):
    """How the daemon's own messages look, "auto" is console on a terminal, else json, and the least of them."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Config(Struct, frozen=True):
    """All settings. `Config()` holds the defaults as replayforge.toml writes them."""

    data_dir: Annotated[str, Meta(min_length=1, description="a directory")] = "./.replayforge"
    lanes: Annotated[
        tuple[LaneConfig, ...], Meta(description="tables of match, key, order, on_dead, concurrency, rate, fair")
    ] = ()
    server: ServerConfig = ServerConfig()
    log: LogConfig = LogConfig()
    ingest: IngestConfig = IngestConfig()
    stream: StreamConfig = StreamConfig()
    redis: RedisConfig = RedisConfig()
    store: StoreConfig = StoreConfig()
    workers: WorkersConfig = WorkersConfig()
    retry: RetryConfig = RetryConfig()
    janitor: JanitorConfig = JanitorConfig()
    supervisor: SupervisorConfig = SupervisorConfig()
    handlers: HandlersConfig = HandlersConfig()
    sources: Annotated[
        tuple[SourceConfig, ...],
        Meta(
            description="tables of name, preset, secrets, event_type, workflow, key, application, headers, rate; a name"
            " has small letters, digits, - and _, the presets are github, stripe, shopify, slack, standard-webhooks,"
            " twilio, hmac, basic and none"
        ),
    ] = ()
    schedules: Annotated[
        tuple[ScheduleConfig, ...],
        Meta(
            description="tables of name, event_type, cron or every_seconds, timezone, application, workflow, payload,"
            " missed (last, all or skip), overlap (queue or skip), jitter_seconds"
        ),
    ] = ()
    alerts: Annotated[
        tuple[AlertConfig, ...],
        Meta(
            description="tables of name, when (dead_letters, new_error_signature, oldest_waiting, held,"
            " ledger_not_clean, disk_low or handler_paused), above_events, above_seconds or below_bytes, url, secret"
            " and allow_private, or command, and timeout_seconds (60 at most)"
        ),
    ] = ()
    retention: RetentionConfig = RetentionConfig()
    journal: JournalConfig = JournalConfig()
    deploy: DeployConfig = DeployConfig()
    chaos: ChaosConfig = ChaosConfig()
    logging: LoggingConfig = LoggingConfig()


@cache  # each start asks for both several times, and what a type says of its fields takes milliseconds to find out
def sections() -> dict[str, type[Struct]]:
    """Return each section of the configuration and its type, in the order of the file."""
    fields = msgspec.structs.fields(Config)
    return {field.name: field.type for field in fields if isinstance(field.type, type)}


@cache
def known_keys() -> dict[str, Any]:
    """Return every key ("data_dir", "server.port", ...) and its type."""
    keys = {field.name: field.type for field in msgspec.structs.fields(Config) if field.name not in sections()}
    for section, kind in sections().items():
        keys |= {f"{section}.{field.name}": field.type for field in msgspec.structs.fields(kind)}
    return keys


def values_by_key(config: Config) -> dict[str, Any]:
    """Return every key of a configuration and its value."""
    values: dict[str, Any] = {}
    for key in known_keys():
        section, _, name = key.rpartition(".")
        values[key] = getattr(getattr(config, section) if section else config, name)
    return values
