"""The command `serve`: show running work, problems and results on a live web page until Ctrl-C."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from quadbench.cli.console import print_answer, print_note
from quadbench.cli.options import Options, Subparsers, add_command, whole_number
from quadbench.errors import UserError, requires_extra
from quadbench.spec import read_file
from quadbench.spec.variables import secret_variable

TOKEN_VARIABLE = "QUADBENCH_SERVE_TOKEN"
_PORT = 8642
_POLITE = 10  # nice level, so that measurements on the same host come first
_MAX_TOKEN_BYTES = 1000


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "serve", run)
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
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"a file with the token that viewers need (default: ${TOKEN_VARIABLE}); optional if only this host can connect",
    )
    parser.add_argument("--certfile", type=Path, metavar="FILE", help="the certificate for TLS, in PEM")
    parser.add_argument("--keyfile", type=Path, metavar="FILE", help="the certificate's key, if it is in another file")


def run(options: Options) -> int:
    with requires_extra("farm"):
        from quadbench.serve.app import listen, live_page, server_of
        from quadbench.serve.auth import access_of, is_loopback
    if options.keyfile and not options.certfile:
        raise UserError("--keyfile needs --certfile", hint="give both")
    token = secret_variable(TOKEN_VARIABLE)
    if options.token_file:
        content = read_file(options.token_file, fault=UserError, max_bytes=_MAX_TOKEN_BYTES)
        if options.token_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            message = f"'{options.token_file}' can be read by other users; expected only by its owner"
            raise UserError(message, hint=f"chmod 600 {options.token_file}")
        token = content.decode("ascii", "replace").strip()
    access = access_of(token, options.host, options.name)
    is_secure = options.certfile is not None
    server = server_of(live_page(options.layout, access, is_secure=is_secure), options.certfile, options.keyfile)
    at = listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"{'https' if is_secure else 'http'}://{host}:{at.getsockname()[1]}/"
    print_answer(options, {"url": url, "needs_token": token is not None}, f"{url} shows {options.layout.root}; Ctrl-C ends it")
    if not is_loopback(options.host) and not is_secure:
        print_note("without TLS, others on the network can read the token: give --certfile, or use a proxy with TLS")
    os.nice(_POLITE)
    with suppress(KeyboardInterrupt):  # a script's background process may ignore Ctrl-C
        server.run(sockets=[at])
    return 0
