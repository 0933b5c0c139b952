"""Runs all benchmarks: `python -m bench`; `python -m bench end_to_end` one of them, `python -m bench --list` lists."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ALL = (
    "end_to_end",
    "latency",
    "slow_handlers",
    "steps",
    "batches",
    "shadow",
    "crash_points",
    "sources",
    "lanes",
    "recovery",
    "overload",
    "backlog",
    "parked",
    "growth",
    "pages",
    "append",
    "outages",
    "peers",
    "drift",
)


def described(name: str) -> str:
    """Return the first line of what a benchmark says of itself."""
    source = Path(__file__).with_name(f"bench_{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main() -> None:
    """Run the named ones, or all, each in a process of its own."""
    names = sys.argv[1:] or ALL
    if unknown := set(names) - set(ALL):
        print("\n".join(f"{name:14} {described(name)}" for name in ALL))
        raise SystemExit(0 if unknown == {"--list"} else 2)
    for name in names:
        print(f"\n## {name} (load {os.getloadavg()[0]:.2f})\n", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.bench_{name}"], check=True)


if __name__ == "__main__":
    main()
