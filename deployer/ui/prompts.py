"""Prompts: passwords and consent to a deletion."""

from __future__ import annotations

import sys

from deployer.errors import Refused, UsageError
from deployer.secrets import Secret


def read_password(user: str) -> Secret:
    """Read a password from the terminal, or from the first line of standard input.

    Raises UsageError when it is empty or not UTF-8; devpi takes passwords as JSON in UTF-8.
    """
    try:
        text = _ask(f"Password of {user}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
        text.encode()
    except UnicodeError:  # its text contains the password
        raise UsageError("the password is not UTF-8", hint="give a password in UTF-8") from None
    if not text:
        raise UsageError("the password is empty", hint="give the password on standard input")
    return Secret(text)


def _ask(prompt: str) -> str:
    from getpass import getpass

    return getpass(prompt)


def consent(what: str, *, yes: bool) -> None:
    """Ask on a terminal whether to delete ``what``; ``yes`` skips the question. Raises Refused."""
    if yes:
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise Refused(f"this would delete {what}", hint="confirm with --yes")
    sys.stderr.write(f"Delete {what}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was deleted", hint="answer y, or confirm with --yes")
