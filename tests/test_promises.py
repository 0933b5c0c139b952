"""What is written about the product, compared with the product."""

import re
import tomllib
from pathlib import Path

import replayforge
from replayforge.config import Config, load_config
from replayforge.config.settings import values_by_key
from replayforge.telemetry import CATALOG

SHIPPED = Path(__file__).parent.parent / "replayforge.toml"


def test_shipped_configuration_lists_every_key_with_its_default() -> None:
    """Every key of the code stands in replayforge.toml with its default, and no other key does."""
    document = tomllib.loads(SHIPPED.read_text())
    written = {"data_dir": document.pop("data_dir")}
    for section, keys in document.items():
        written |= {f"{section}.{name}": tuple(v) if isinstance(v, list) else v for name, v in keys.items()}
    assert written == values_by_key(Config())


def test_shipped_configuration_explains_every_key() -> None:
    """Every line with a key ends with a comment of at least two words."""
    lines = [line for line in SHIPPED.read_text().splitlines() if re.match(r"(# )?\w+ = ", line)]
    assert len(lines) > 50
    assert [line for line in lines if not re.search(r"\s# \S+ \S+", line)] == []


def test_shipped_configuration_changes_nothing() -> None:
    """A daemon with the shipped file runs on the same settings as one without any."""
    assert load_config(SHIPPED, {}, {}).config == load_config(Path("/dev/null"), {}, {}).config


def emitted_names() -> set[str]:
    """Find every name that the package hands to `emit` or `report` as a literal."""
    package = Path(replayforge.__file__).parent
    text = "\n".join(path.read_text() for path in package.rglob("*.py"))
    return set(re.findall(r"\b(?:emit|report)\(\s*\"([a-z_]+\.[a-z_]+)\"", text))


def test_every_telemetry_event_that_is_emitted_stands_in_the_table() -> None:
    """No part of the daemon reports under a name that the table does not explain."""
    assert emitted_names() - set(CATALOG) == set()


def test_every_telemetry_event_of_the_table_is_a_noun_and_a_verb() -> None:
    """Names read `noun.verb_past` and each has a level that the log knows."""
    assert [name for name in CATALOG if not re.fullmatch(r"[a-z]+\.[a-z_]+", name)] == []
    assert {level for level, _ in CATALOG.values()} <= {"debug", "info", "warning", "error"}
