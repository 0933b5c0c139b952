"""How flags, environment, file and defaults become one configuration that is right, or one error that names it all."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from replayforge.config.alert_rules import alert_problems
from replayforge.config.errors import ConfigError
from replayforge.config.schedule_rules import schedule_problems
from replayforge.config.settings import Config, known_keys, sections, values_by_key
from replayforge.config.source_rules import source_problems
from replayforge.config.sources import (
    Setting,
    parse_list,
    settings_of_environment,
    settings_of_file,
    settings_of_flags,
    variable_of,
)
from replayforge.domain.api_keys import parse_keys

DEFAULT_FILE = Path("replayforge.toml")
DEFAULT_ORIGIN = "default"
SECRET_KEYS = frozenset({"server.api_keys", "handlers.http", "sources", "alerts"})
TABLES = frozenset({"handlers.http", "sources", "schedules", "lanes", "alerts"})
KEYS = known_keys()


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The settings in force and, for each key, where its value came from. `path` is the file that was read.

    `again` reads them from the same places once more, whatever has become of the working directory and the environment.
    """

    config: Config
    origins: Mapping[str, str]
    path: Path | None
    again: "Callable[[], LoadedConfig]"


def load_config(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> LoadedConfig:
    """Return the settings in force: flags over environment over file over defaults.

    Without a `path` the file is ./replayforge.toml, if there is one. `flags` go by their names on the command line
    ("port", "data_dir"), None meaning not given. Raises ConfigError, which names every mistake at once.
    """
    sought, environment, flags = (path or DEFAULT_FILE).absolute(), dict(environment), dict(flags)
    if path is None and DEFAULT_FILE.is_file():
        path = DEFAULT_FILE
    settings = [
        *(settings_of_file(path) if path else ()),
        *settings_of_environment(environment),
        *settings_of_flags(flags),
    ]
    values, origins = chosen(settings)
    config = resolved(assembled(values))
    problems = list(contradictions(config))
    if problems:
        raise ConfigError(problems)
    named = path is not None
    return LoadedConfig(
        config, origins, path, lambda: load_config(sought if named or sought.is_file() else None, environment, flags)
    )


def chosen(settings: Iterable[Setting]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return value and origin for each key, later settings winning; raises ConfigError for all that is wrong."""
    values = values_by_key(Config())
    origins = dict.fromkeys(values, DEFAULT_ORIGIN)
    problems = []
    for setting in settings:
        try:
            values[setting.key] = converted(setting)
            origins[setting.key] = setting.origin
        except ValueError as error:
            problems.append(f"{setting.origin}: {error}")
    if problems:
        raise ConfigError(problems)
    return values, origins


def converted(setting: Setting) -> Any:
    """Return the value in its own type; raises ValueError with a sentence that names the key and what is right."""
    if setting.key not in KEYS:
        raise ValueError(unknown(setting))
    kind = KEYS[setting.key]
    try:
        value = parse_list(setting.value) if setting.is_text and holds_list(kind) else setting.value
        return msgspec.convert(value, type=kind, strict=not setting.is_text)
    except msgspec.MsgspecError as error:
        shown = "" if setting.key in SECRET_KEYS else f" = {masked(setting.value)!r}"
        detail = f" ({error})" if setting.key in TABLES else ""
        raise ValueError(f"{setting.key}{shown} is wrong; accepted: {accepted(kind)}{detail}.") from None


def unknown(setting: Setting) -> str:
    """Say that there is no such key or section, and which one is nearest."""
    section, _, name = setting.key.rpartition(".")
    siblings = [key.rpartition(".")[2] for key in KEYS if key.rpartition(".")[0] == section]
    near_names = difflib.get_close_matches(name, siblings, 1, cutoff=0.4) if siblings else []
    near_keys = difflib.get_close_matches(setting.key, KEYS, 1, cutoff=0.0)
    nearest = (f"{section}.{near_names[0]}" if section else near_names[0]) if near_names else near_keys[0]
    if setting.origin.startswith("environment"):
        nearest = variable_of(nearest)
    return f"there is no key {setting.key}; the nearest is {nearest}."


def accepted(kind: Any) -> str:
    """Return in words which values a type takes."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(name for name in get_args(kind) if name != "forgelog")
    described = [note.description for note in getattr(kind, "__metadata__", ()) if isinstance(note, msgspec.Meta)]
    return described[0] or "" if described else {bool: "true or false", str: "a text"}[kind]


def holds_list(kind: Any) -> bool:
    """Say whether values of the type are lists."""
    return get_origin(getattr(kind, "__origin__", kind)) is tuple


def masked(value: Any) -> Any:
    """Return the value, with the password of a URL hidden."""
    return re.sub(r"(://[^:/@]*):[^@/]+@", r"\1:…@", value) if isinstance(value, str) else value


def assembled(values: Mapping[str, Any]) -> Config:
    """Build the configuration from its values by key."""
    parts: dict[str, Any] = {key: value for key, value in values.items() if "." not in key}
    for section, kind in sections().items():
        fields = kind.__struct_fields__
        parts[section] = kind(**{field: values[f"{section}.{field}"] for field in fields})
    return Config(**parts)


def resolved(config: Config) -> Config:
    """Fill in what one setting takes from another, and replace old names by those in use."""
    directory = absolute(config.data_dir)
    log_directory = absolute(config.log.dir.replace("{data_dir}", directory)) if config.log.dir else f"{directory}/log"
    url = re.sub(r"^(\w+)\+\w+://", r"\1://", config.store.url).replace("{data_dir}", directory)
    scheme, separator, path = url.partition(":///")
    if scheme == "sqlite":
        url = f"{scheme}{separator}{absolute(path)}"
    modules = tuple(absolute(name) if name.endswith(".py") else name for name in config.handlers.modules)
    return replace(
        config,
        data_dir=directory,
        log=replace(config.log, dir=log_directory),
        store=replace(config.store, url=url),
        handlers=replace(config.handlers, modules=modules),
        stream=replace(
            config.stream, backend="embedded" if config.stream.backend == "forgelog" else config.stream.backend
        ),
    )


def absolute(path: str) -> str:
    """Return the path as it is meant now, so that a handler which changes the working directory moves nothing."""
    return str(Path(path).expanduser().absolute())


def contradictions(config: Config) -> Iterator[str]:
    """Yield a sentence for each pair of settings that cannot both be meant."""
    workers, retry, server = config.workers, config.retry, config.server
    if workers.heartbeat_seconds > workers.lease_seconds / 2:
        yield (
            "workers.heartbeat_seconds must be at most half of workers.lease_seconds: a lease that was not renewed for"
            " two thirds of its length is given up."
        )
    if retry.base_seconds > retry.max_seconds:
        yield "retry.base_seconds must not be above retry.max_seconds."
    try:
        parse_keys(server.api_keys)
    except ValueError as error:
        yield f"server.api_keys {error}."
    if server.bulk_bytes_max < server.event_bytes_max:
        yield "server.bulk_bytes_max must not be below server.event_bytes_max."
    if server.bodies_bytes_max < server.bulk_bytes_max:
        yield "server.bodies_bytes_max must not be below server.bulk_bytes_max, or the largest requests never fit."
    if config.log.append_queue_bytes_max < server.event_bytes_max:
        yield "log.append_queue_bytes_max must not be below server.event_bytes_max, or large events never fit."
    yield from source_problems(config.sources)
    yield from lane_problems(config)
    yield from schedule_problems(config.schedules)
    yield from alert_problems(config.alerts)
    yield from (f"{key} is not an address." for key, url in addresses(config).items() if not is_address(url))
    if config.stream.backend == "redis" and not config.redis.url:
        yield 'stream.backend is "redis", but redis.url is empty.'


def lane_problems(config: Config) -> Iterator[str]:
    """Yield a sentence for each lane that cannot be meant."""
    seen: set[str] = set()
    for lane in config.lanes:
        if lane.match in seen:
            yield f"Two [[lanes]] have match = {lane.match!r}; keep one."
        seen.add(lane.match)
        try:
            lane.rules()
        except ValueError as error:
            yield f"The lane for {lane.match!r} cannot be used: {error}."


def addresses(config: Config) -> dict[str, str]:
    """Return the settings that are addresses, by key."""
    return {"store.url": config.store.url, "redis.url": config.redis.url}


def is_address(url: str) -> bool:
    """Tell whether a URL can be taken apart; what is said of it never repeats it, for it may hold a password."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
