"""Entry point of `python -m quadbench`; Ctrl-C during its imports ends with a message instead of a traceback."""

import sys


def start() -> int:
    """Import and run the command line; return the exit code."""
    try:
        if sys.argv[1:3] == ["farm", "attempt"]:  # begins in a tenth of a second, without the command line's imports
            from quadbench.dispatch import attempt_client

            return attempt_client.main(sys.argv[3:])
        from quadbench.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; nothing was begun\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
