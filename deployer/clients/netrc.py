"""``~/.netrc``: user and password of a server, for pip, uv, poetry, pdm, curl and whoever else reads it.

An address in a client's own file is read by more people than this file is, and is printed. The file knows hosts, and no
ports: a password for a host is sent to every server there that asks for one.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from deployer.clients import files
from deployer.clients.client import Account, ClientSettings, Effective, Unmerged, Values
from deployer.clients.text import check_values, decode
from deployer.errors import ClientFileError
from deployer.secrets import Secret

NAME = "netrc"
_MARK = "account deployer"
"""What tells our lines from others: installers ignore an account."""
_TOKEN = "use a token: deployer token create USER --read"  # noqa: S105 - a hint
_LINE = re.compile(rf"machine (\S+) login (\S+) {_MARK} password (\S+)")


@dataclass(frozen=True)
class Login:
    """A user and its password, or a token, for the server of an index."""

    user: str
    secret: Secret

    @property
    def headers(self) -> dict[str, str]:
        pair = f"{self.user}:{self.secret.reveal()}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


@dataclass(frozen=True, kw_only=True)
class NetrcConfig:
    """The file names no index, so it says nothing of one."""

    key = ""

    def effective(self, key: str) -> Effective:
        return Effective()

    def masks(self, key: str, path: Path) -> tuple[str, ...]:
        return ()

    def ignores(self, path: Path) -> str:
        return ""

    def with_file(self, path: Path, content: bytes) -> Self:
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class Netrc:
    """The file as a client file. ``login``: what is written into it; None to undo that."""

    login: Login | None = None

    name = NAME
    scopes = ("user",)
    index_key = ""
    command = "deployer clients login"
    undo = "deployer clients logout"

    @property
    def own_scopes(self) -> Mapping[str, str]:
        return {"user": "user"}

    def variables(self, settings: ClientSettings) -> Values:
        return {}

    def risks(self, account: Account) -> tuple[str, ...]:
        return ()

    def detect(self, scope: str, account: Account) -> Path:
        """pip, uv and others obey the variable, too."""
        chosen = account.env.get("NETRC", "")
        return Path(chosen) if chosen else account.home / ".netrc"

    def part(self, path: Path) -> str:
        return ""

    def read(self, account: Account) -> NetrcConfig:
        return NetrcConfig()

    def values(self, settings: ClientSettings, path: Path) -> Values:
        """The record of a write has no password in it."""
        if self.login is None:
            return {}
        words = {"host": host_of(settings.index_url), "user": self.login.user, "password": self.login.secret.reveal()}
        check_values(words)
        if set(words["password"] + words["user"]) & set("\"'\\#"):  # programs read these in different ways
            raise ClientFileError("a quote, a backslash or # in a password can't be written", hint=_TOKEN)
        return {f"machine {words['host']}": f"{words['user']} {_digest(words['password'])}"}

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        return ()

    def merge(self, content: bytes, values: Values) -> bytes:
        text = decode(content)
        for key in values:
            host = key.removeprefix("machine ")
            others = [line for line in text.splitlines(keepends=True) if _host(line) != host]
            if re.search(rf"(?:^|\s)machine\s+{re.escape(host)}(?=\s|$)", "".join(others)):
                raise ClientFileError(
                    f"there is an entry for {host} already", hint=f"remove it, or log in with it: machine {host}"
                )
            # First, since what follows `default`, or belongs to a macro, is not read as an entry.
            text = self._line(host) + "".join(others)
        return text.encode()

    def _line(self, host: str) -> str:
        if self.login is None:
            return ""
        return f"machine {host} login {self.login.user} {_MARK} password {self.login.secret.reveal()}\n"

    def unmerge(self, content: bytes, *, original: bytes, written: Sequence[Values]) -> Unmerged:
        ours = {(key, value) for values in written for key, value in values.items()}
        before = decode(original).splitlines(keepends=True)
        rest: list[str] = []
        kept: list[str] = []
        for line in decode(content).splitlines(keepends=True):
            record = _record(line)
            if record in ours and line not in before:
                continue
            if record is not None and line not in before:
                kept.append(record[0])
            rest.append(line)
        return Unmerged("".join(rest).encode(), tuple(kept))


def host_of(url: str) -> str:
    """The host of an address as clients look it up in the file."""
    return urlsplit(url).hostname or ""


def known(account: Account, url: str) -> Login | None:
    """The login that deployer has written for the host of ``url``. Raises ClientFileError."""
    content = files.read_bytes(Netrc().detect("user", account))
    found = (_LINE.fullmatch(line.strip()) for line in decode(content or b"").splitlines())
    return next((Login(one[2], Secret(one[3])) for one in found if one and one[1] == host_of(url)), None)


def headers(url: str) -> dict[str, str]:
    """The header with that login, for commands that read the index as a client does; empty without one."""
    try:
        found = known(Account.of(os.environ), url)
    except ClientFileError:
        return {}
    return {} if found is None else found.headers


def _host(line: str) -> str:
    found = _LINE.fullmatch(line.strip())
    return found[1] if found else ""


def _record(line: str) -> tuple[str, str] | None:
    """What :meth:`Netrc.values` has for a line of ours."""
    found = _LINE.fullmatch(line.strip())
    return (f"machine {found[1]}", f"{found[2]} {_digest(found[3])}") if found else None


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()[:16]
