"""How often something may happen, as people write it: "100/s", "5/min", "1000/h"."""

import re

RATE = re.compile(r"([1-9][0-9]{0,8})\s*/\s*(s|min|h)")
UNIT_SECONDS = {"s": 1, "min": 60, "h": 3_600}


def per_second(text: str) -> float:
    """Return how often a second; raises ValueError for what is no rate."""
    found = RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is no rate; write it as "100/s", "5/min" or "1000/h".')
    return int(found[1]) / UNIT_SECONDS[found[2]]
