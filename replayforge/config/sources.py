"""Where settings are written: flags, environment variables and a TOML file, each read into plain settings."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from replayforge.config.errors import ConfigError

ENVIRONMENT_PREFIX = "REPLAYFORGE__"
VARIABLES_OF_THE_ORIGINAL = {"EVENT_BACKEND": "stream.backend", "REDIS_URL": "redis.url", "DATABASE_URL": "store.url"}
FLAGS = {
    "data_dir": "data_dir",
    "host": "server.host",
    "port": "server.port",
    "workers": "workers.count",
    "handlers": "handlers.modules",
    "simulate_crashes": "chaos.enabled",
    "fail_rate": "chaos.fail_rate",
    "crash_rate": "chaos.crash_rate",
    "exit_rate": "chaos.exit_rate",
    "crash_at": "chaos.crash_at",
    "log_level": "logging.level",
    "log_format": "logging.format",
    "allow_network_fs": "log.allow_network_fs",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value as somebody wrote it, before anybody looked whether it is right."""

    key: str
    value: Any
    origin: str
    is_text: bool = False


def settings_of_file(path: Path) -> Iterator[Setting]:
    """Yield what a TOML file says; raises ConfigError when it cannot be read."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError([f"The configuration file {path} cannot be read: {error.strerror}."]) from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError([f"The configuration file {path} is not TOML: {error}."]) from None
    for name, value in document.items():
        if isinstance(value, dict):
            yield from (Setting(f"{name}.{key}", inner, str(path)) for key, inner in value.items())
        else:
            yield Setting(name, value, str(path))


def settings_of_environment(environment: Mapping[str, str]) -> Iterator[Setting]:
    """Yield what the variables say: first those with legacy names, then REPLAYFORGE__SECTION__KEY, which win."""
    for variable, key in VARIABLES_OF_THE_ORIGINAL.items():
        if environment.get(variable):
            yield Setting(key, environment[variable], f"environment {variable}", is_text=True)
    for variable, text in environment.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            yield Setting(key, text, f"environment {variable}", is_text=True)


def variable_of(key: str) -> str:
    """Return the environment variable that a setting is written in."""
    return ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


def environment_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Write settings, by keys such as "workers.count", as the variables they are read from; all but text as JSON."""
    return {
        variable_of(key): value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for key, value in settings.items()
    }


def settings_of_flags(flags: Mapping[str, Any]) -> Iterator[Setting]:
    """Yield the flags that were given; None and an empty list mean that a flag was not."""
    for name, value in flags.items():
        if value is not None and value != ():
            yield Setting(FLAGS[name], value, f"flag --{name.replace('_', '-')}")


def parse_list(text: str) -> Any:
    """Read a list from a variable: a JSON array, or texts between commas."""
    if text.lstrip().startswith("["):
        return msgspec.json.decode(text)
    return [part.strip() for part in text.split(",") if part.strip()]
