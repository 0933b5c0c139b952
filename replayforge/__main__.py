"""`python -m replayforge` is the command `replayforge`."""

from replayforge.cli.main import main

if __name__ == "__main__":
    main()
