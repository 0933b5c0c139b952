"""What is written about the product, compared with the product."""

import re
import tomllib
from pathlib import Path

from replayforge.config import Config, load_config
from replayforge.config.settings import values_by_key

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
