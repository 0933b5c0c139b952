"""Makes sources of what the configuration says, with their secrets, which nobody sees again."""

from collections.abc import Mapping, Sequence

from replayforge.config import ConfigError, SourceConfig
from replayforge.config.source_rules import secret_of
from replayforge.domain.rate import per_second
from replayforge.domain.template import Template, template_of
from replayforge.domain.webhook_presets import PRESETS
from replayforge.domain.webhook_signature import key_of
from replayforge.domain.webhook_source import Source


def load_sources(configured: Sequence[SourceConfig], environment: Mapping[str, str]) -> list[Source]:
    """Return the sources; raises ConfigError, without a word of a secret, for one that is not there or cannot be."""
    return [source_of(one, environment) for one in configured]


def source_of(configured: SourceConfig, environment: Mapping[str, str]) -> Source:
    """Return one source; what is not said of it its preset brings."""
    preset = PRESETS[configured.preset]
    key = configured.key or preset.key
    keys = []
    for number, secret in enumerate(configured.secrets, start=1):
        try:
            keys.append(key_of(preset, secret_of(configured, secret, environment)))
        except ValueError as error:
            raise ConfigError([f"sources.{configured.name}: secret {number} cannot be used: {error}."]) from None
    return Source(
        name=configured.name,
        preset_name=configured.preset,
        preset=preset,
        keys=tuple(keys),
        event_type=templates_of(configured.event_type, preset.event_type),
        workflow=templates_of(configured.workflow, preset.workflow),
        key=template_of(key) if key else None,
        application=configured.application or configured.name,
        headers=tuple(pattern.lower() for pattern in configured.headers or preset.headers),
        rate=per_second(configured.rate) if configured.rate else None,
    )


def templates_of(text: str, otherwise: Sequence[str]) -> tuple[Template, ...]:
    """Read the template that is given, or else those of the preset."""
    return tuple(template_of(one) for one in ([text] if text else otherwise))
