"""What is said of a source in the configuration: whether it can be meant, and where its secrets are found."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from replayforge.config.errors import ConfigError, doubled_names
from replayforge.config.settings import SourceConfig
from replayforge.domain.rate import per_second
from replayforge.domain.template import template_of

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
UNSIGNED = "none"


def source_problems(sources: Sequence[SourceConfig]) -> Iterator[str]:
    """Yield a sentence for each thing that a source cannot mean."""
    yield from doubled_names("sources", (source.name for source in sources))
    for source in sources:
        yield from (f"sources.{source.name}: {problem}" for problem in problems_of(source))


def problems_of(source: SourceConfig) -> Iterator[str]:
    """Yield what is wrong with one source; no secret is repeated."""
    if source.preset == UNSIGNED and source.secrets:
        yield 'preset = "none" checks no signature, so leave secrets out.'
    if source.preset != UNSIGNED and not all((source.secrets, *source.secrets)):
        yield 'secrets are needed to check who sends, such as secrets = ["${NAME}"], and none may be empty.'
    for template in (source.event_type, source.workflow, source.key):
        try:
            template_of(template)
        except ValueError as error:
            yield str(error)
    if source.rate:
        try:
            per_second(source.rate)
        except ValueError as error:
            yield f"rate {error}"


def is_reference(secret: str) -> bool:
    """Tell whether a secret only says where it is found."""
    return secret.startswith("@") or VARIABLE.fullmatch(secret) is not None


def secret_of(source: SourceConfig, secret: str, environment: Mapping[str, str]) -> str:
    """Return a secret: the value of `${NAME}`, what stands in the file of `@PATH`, or itself.

    Raises ConfigError, which names the place and never the secret.
    """
    variable = VARIABLE.fullmatch(secret)
    if variable is not None:
        found, place = environment.get(variable[1], ""), f"the environment variable {variable[1]}"
    elif secret.startswith("@"):
        found, place = "", f"the file {secret[1:]}"
        with suppress(OSError, ValueError):
            found = Path(secret[1:]).read_text().strip()
    else:
        return secret
    if not found:
        raise ConfigError([f"sources.{source.name}: {place} should hold a secret, and holds none or cannot be read."])
    return found
