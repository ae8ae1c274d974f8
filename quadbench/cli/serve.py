"""The command `serve`: show running work, problems and results on a live web page until Ctrl-C."""

import os
from contextlib import suppress

from quadbench.cli.console import print_answer, print_note
from quadbench.cli.options import Options, Subparsers, add_command, whole_number
from quadbench.errors import requires_extra
from quadbench.spec.variables import secret_variable

TOKEN_VARIABLE = "QUADBENCH_SERVE_TOKEN"
_PORT = 8642
_POLITE = 10  # nice level, so that measurements on the same host come first


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "serve", run)
    parser.epilog = f"${TOKEN_VARIABLE} has the token that viewers need; it is optional if only this host can connect"
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="the address to listen at (default: %(default)s, only this host)"
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, 65_535),
        default=_PORT,
        help="the port, or 0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a name by which others reach this host; can be repeated"
    )


def run(options: Options) -> int:
    with requires_extra("farm"):
        from quadbench.serve.app import listen, live_page, server_of
        from quadbench.serve.auth import access_of, is_loopback
    token = secret_variable(TOKEN_VARIABLE)
    server = server_of(live_page(options.layout, access_of(token, options.host, options.name)))
    at = listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{at.getsockname()[1]}/"
    print_answer(options, {"url": url, "needs_token": token is not None}, f"{url} shows {options.layout.root}; Ctrl-C ends it")
    if not is_loopback(options.host):
        print_note("others on the network can read the token: put a proxy with TLS in front; see docs/farm.md")
    os.nice(_POLITE)
    with suppress(KeyboardInterrupt):  # a script's background process may ignore Ctrl-C
        server.run(sockets=[at])
    return 0
