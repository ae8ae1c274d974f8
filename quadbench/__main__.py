"""`python -m quadbench` is `quadbench`: nothing is imported before Ctrl-C is minded, which otherwise ends in a traceback."""

import sys


def start() -> int:
    """Run the command line, whose own import may be interrupted."""
    try:
        from quadbench.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
