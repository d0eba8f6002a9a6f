"""The command line: ``python -m sealpost``, or ``sealpost-client``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path

from .commands import GAVE_UP, OK, USAGE, Settings, chat, listen, send
from .console import Console
from .errors import StorageError
from .frames import device_id
from .version import __version__

TOKEN_VARIABLE = "SEALPOST_ACCESS_TOKEN"
NOT_ENCRYPTED = "Text is carried as it is, NOT encrypted: the relay can read it."
EPILOG = f"""\
{NOT_ENCRYPTED}

Exit status: 0 done; 1 refused by the relay; 2 wrong usage; 3 expired; 4 gave up, because the connection was
refused, the time was over, or the storage failed. A message that was given up stays in the outbox of --storage.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = Settings(options.url, Console(options.json), options.storage, _access_token(options))
        work = _work(settings, options)
    except ValueError as error:
        parser.error(str(error))
    try:
        return asyncio.run(_run(work))
    except StorageError as error:
        settings.console.failure(error)
        return GAVE_UP
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return USAGE


def script() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character shows another one, rather than end the command.
            stream.reconfigure(errors="replace")
    status = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("url", metavar="URL", help="the relay: ws://HOST:PORT/ws or wss://HOST/ws")
    common.add_argument(
        "--storage",
        metavar="FILE",
        help="keep the device and its outbox in FILE; without it, the device ends with the command",
    )
    token = common.add_mutually_exclusive_group()
    token.add_argument(
        "--access-token-file",
        metavar="FILE",
        help=f"read the access token from FILE; {TOKEN_VARIABLE} in the environment does, too",
    )
    token.add_argument(
        "--access-token", metavar="TOKEN", help="the access token; other users of this machine can see it here"
    )
    common.add_argument("--json", action="store_true", help="print everything as JSON, one object a line")

    parser = argparse.ArgumentParser(
        prog="sealpost-client",
        description="Send and receive text over a Sealpost relay.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            parents=[common],
            help=text,
            description=f"{text}\n\n{NOT_ENCRYPTED}",
            epilog=EPILOG.partition("\n\n")[2],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    listening = command("listen", "Print the messages that arrive.")
    listening.add_argument("--count", type=_positive, metavar="N", help="end after N messages")

    sending = command("send", "Send one text, and wait until the relay has it.")
    sending.add_argument("to", metavar="TO", help="the id of the recipient")
    sending.add_argument("text", metavar="TEXT", help="the text, or - to read it from stdin")
    sending.add_argument(
        "--wait-for",
        choices=("accepted", "delivered", "processed"),
        default="accepted",
        help="what to wait for (default: accepted)",
    )
    sending.add_argument(
        "--ttl", type=_whole, metavar="SECONDS", help="how long the message may wait for its recipient"
    )
    sending.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait (default: 60)"
    )

    chatting = command("chat", "Send the lines of stdin, and print the messages that arrive.")
    chatting.add_argument("to", metavar="TO", nargs="?", help="the id of the other device (default: who writes first)")
    return parser


def _work(settings: Settings, options: argparse.Namespace) -> Coroutine[None, None, int]:
    if options.command == "listen":
        return listen(settings, options.count)
    to = None if options.to is None else device_id(options.to)
    if options.command == "chat" or to is None:
        return chat(settings, to)
    text = _stdin() if options.text == "-" else options.text
    return send(settings, to, text, options.wait_for, options.ttl, options.timeout)


async def _run(work: Coroutine[None, None, int]) -> int:
    """Run a command; SIGINT and SIGTERM end it in an orderly way."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # On Windows.
            loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return OK


def _access_token(options: argparse.Namespace) -> str | None:
    if options.access_token_file is not None:
        try:
            token = Path(options.access_token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--access-token-file: {error}") from error
    else:
        token = options.access_token or os.environ.get(TOKEN_VARIABLE, "")
    return token or None


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin is no text in UTF-8: {error}") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number
