"""Runs every benchmark after another: `python -m bench`, or `python -m bench end_to_end` for one of them."""

import os
import subprocess
import sys

ALL = (
    "end_to_end",
    "latency",
    "steps",
    "shadow",
    "sources",
    "lanes",
    "recovery",
    "backlog",
    "growth",
    "pages",
    "append",
    "outages",
)


def main() -> None:
    """Run the named ones, or all, each in a process of its own."""
    for name in sys.argv[1:] or ALL:
        print(f"\n## {name} (load {os.getloadavg()[0]:.2f})\n", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.bench_{name}"], check=True)


if __name__ == "__main__":
    main()
