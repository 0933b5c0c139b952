"""The configuration: known to what starts and builds a daemon; everything else is handed the values it needs."""

from replayforge.config.errors import ConfigError
from replayforge.config.loading import LoadedConfig, load_config
from replayforge.config.settings import Config, HttpEndpoint, ScheduleConfig, SourceConfig

__all__ = ["Config", "ConfigError", "HttpEndpoint", "LoadedConfig", "ScheduleConfig", "SourceConfig", "load_config"]
