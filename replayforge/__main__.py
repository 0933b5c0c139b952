"""`python -m replayforge` is the command `replayforge`, which hears Ctrl-C from its first moment on."""

import sys


def main() -> None:
    """Load the command line and run it; Ctrl-C ends in one sentence, even while modules load."""
    try:
        from replayforge.cli.main import main as run  # loading takes longest, and must be interruptible

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
