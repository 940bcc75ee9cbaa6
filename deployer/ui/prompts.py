"""Questions to a person, or to the program on standard input: passwords, and consent to a deletion."""

from __future__ import annotations

import sys

from deployer.errors import Refused, UsageError
from deployer.secrets import Secret


def read_password(user: str) -> Secret:
    """A password from the terminal, or the first line of standard input. Raises UsageError when there is none, or it
    is not UTF-8, in which servers are told it."""
    try:
        text = _ask(f"Password of {user}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
        text.encode()
    except UnicodeError:  # which names the password
        raise UsageError("the password is not UTF-8", hint="give it in UTF-8, or without such characters") from None
    if not text:
        raise UsageError("the password is empty", hint="give it on standard input")
    return Secret(text)


def _ask(prompt: str) -> str:
    from getpass import getpass

    return getpass(prompt)


def consent(what: str, *, yes: bool) -> None:
    """Ask whether to delete ``what``, on a terminal; ``yes``: the command line said so. Raises Refused."""
    if yes:
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise Refused(f"this would delete {what}", hint="insist with --yes")
    sys.stderr.write(f"Delete {what}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was deleted", hint="answer y, or give --yes")
