"""Where the static files of the pages lie: in the wheel, or in the checkout."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def static_root() -> Traversable:
    """Return where the static files lie: inside the installed package, else at the root of the checkout."""
    inside = files("replayforge") / "static"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[1] / "static"
