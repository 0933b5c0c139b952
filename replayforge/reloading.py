"""SIGHUP: the settings are read again, and what may change while the daemon runs is taken over."""

from collections.abc import Callable

from replayforge.config import LoadedConfig
from replayforge.config.settings import values_by_key
from replayforge.daemon_log import listen_to, output
from replayforge.domain.errors import ReplayForgeError
from replayforge.start_rules import check_exposure
from replayforge.telemetry import Telemetry

TAKEN_OVER = frozenset({"logging.level", "logging.format", "server.api_keys"})


class Reloader:
    """Takes over how the daemon logs, and the API keys. Settings that a start would refuse leave all as it was."""

    def __init__(
        self, loaded: LoadedConfig, replace_keys: Callable[[tuple[str, ...]], None], telemetry: Telemetry
    ) -> None:
        self.again = loaded.again
        self.in_force = values_by_key(loaded.config)
        self.replace_keys = replace_keys
        self.telemetry = telemetry

    def reload(self) -> None:
        """Read the settings from where they were read, in any thread; say what has changed and what takes a restart."""
        try:
            config = self.again().config
            check_exposure(config)
        except ReplayForgeError as error:
            self.telemetry.emit("config.refused", error=str(error))
            return
        found = values_by_key(config)
        changed = [key for key, value in found.items() if value != self.in_force[key]]
        output.begin(config.logging.format, config.logging.level)
        listen_to(self.telemetry)
        self.replace_keys(config.server.api_keys)
        self.in_force |= {key: found[key] for key in TAKEN_OVER}
        self.telemetry.emit(
            "config.reread",
            changed=[key for key in changed if key in TAKEN_OVER],
            needs_restart=[key for key in changed if key not in TAKEN_OVER],
            level=config.logging.level,
            keys=len(config.server.api_keys),
        )
