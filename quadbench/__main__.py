"""Entry point of `python -m quadbench`; Ctrl-C during its imports ends with a message instead of a traceback."""

import sys


def start() -> int:
    """Import and run the command line; return the exit code."""
    try:
        from quadbench.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
