"""What this server is among others: alone, the primary that is written to, or a replica that follows it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deployer.protocol import NODEINFO, ExitCode, Refusal, is_index_name, parsed
from deployer.server.devpi.installed import installed
from deployer.server.secret_files import Private, read_text, write_private

NAME = "deployer-role"
STANDALONE, PRIMARY, REPLICA = ROLES = ("standalone", "primary", "replica")
PROMOTE = "deployer cluster promote MEMBER"
SHORTEST_SECRET = 32
"""Characters of the shortest secret: devpi refuses a shorter one."""


@dataclass(frozen=True)
class Role:
    """Registered as a devpi plugin, as :class:`deployer.server.hosts.KnownHosts` is.

    ``primary_url``: of a replica's primary, with a slash at the end. ``write_wait``: seconds for which a primary waits
    until all replicas have a write. ``upstream``: whether a replica fetches files from upstreams while its primary is
    down. ``number``: of this member in its cluster; None without one. ``uuid``: of the cluster's data; empty while
    nobody knows it. ``on_demand``: mirrors of which a replica fetches a file when a client asks for it, and not before.
    """

    kind: str = STANDALONE
    primary_url: str = ""
    write_wait: float = 2.0
    upstream: bool = True
    number: int | None = None
    uuid: str = ""
    on_demand: tuple[str, ...] = ()

    @property
    def is_primary(self) -> bool:
        return self.kind == PRIMARY

    @property
    def is_replica(self) -> bool:
        return self.kind == REPLICA

    @property
    def words(self) -> tuple[str, ...]:
        """devpi's options, also of its first boot."""
        if self.is_replica:
            return ("--role", REPLICA, "--primary-url", self.primary_url)
        return ("--role", PRIMARY) if self.is_primary else ()

    @classmethod
    def chosen(cls, options: argparse.Namespace) -> Role:
        """The role that the arguments of ``serve`` give; a numbered member's comes from the numbers. Raises Refusal."""
        kind, url = options.role, options.primary_url
        if (options.member is None) != (options.primary is None):
            raise Refusal(
                "a member needs its own number and the primary's",
                hint="give both --member and --primary, or none",
                code=ExitCode.USAGE,
            )
        if options.member is not None:
            if kind != STANDALONE:
                raise Refusal(
                    "--role and --member both say what this server is", hint="remove --role", code=ExitCode.USAGE
                )
            kind = PRIMARY if options.member == options.primary else REPLICA
            url = url if kind == REPLICA else ""
        made = cls.of(kind, url, write_wait=options.write_wait, upstream=options.replica_upstream)
        return replace(
            made, number=options.member, uuid=options.cluster_uuid, on_demand=_names(options.files_on_demand)
        )

    @classmethod
    def of(cls, kind: str, primary_url: str, *, write_wait: float, upstream: bool) -> Role:
        """Raises Refusal."""
        if kind != STANDALONE and installed().major != "6":
            raise Refusal(
                f"devpi-server {installed().major} can't be a {kind}: replication needs devpi-server 6",
                hint='set server.version: "6"',
                code=ExitCode.REFUSED,
            )
        if (kind == REPLICA) != bool(primary_url):
            what = "a replica needs the address of its primary" if kind == REPLICA else f"a {kind} has no primary"
            raise Refusal(what, hint="give --primary-url with --role replica, and only with it", code=ExitCode.USAGE)
        if primary_url and not primary_url.startswith(("http://", "https://")):
            raise Refusal(
                f"{primary_url} is no address of a primary", hint="begin it with https://", code=ExitCode.USAGE
            )
        return cls(kind, primary_url and primary_url.rstrip("/") + "/", write_wait, upstream)

    def check(self, serverdir: Path, *, promoted: bool = False) -> None:
        """Raise Refusal for data of a server that had another role, or of another cluster.

        ``promoted``: a replica's data may become the primary's.
        """
        found = nodeinfo(serverdir)
        former = str(found.get("role", ""))
        if not former:
            if self.is_primary and self.uuid and not (serverdir / NODEINFO).exists():
                raise Refusal(
                    f"{self._name} is the primary of the data {self.uuid}, and {serverdir} is empty",
                    hint=f"mount its volume; if its data is lost: {PROMOTE}",
                    code=ExitCode.REFUSED,
                )
        elif self.is_replica != (former == REPLICA) and not (promoted and self.is_primary):
            hint = f"copy all data to it anew: deployer cluster renew {self.number}" if self.is_replica else PROMOTE
            if self.number is None:
                hint = "give a replica a directory of its own, which is empty at first"
            raise Refusal(
                f"{serverdir} holds the data of a {former}, and {self._name} is a {self.kind}",
                hint=hint,
                code=ExitCode.REFUSED,
            )
        else:
            self._check_uuid(serverdir, uuid_of(found))

    def _check_uuid(self, serverdir: Path, uuid: str) -> None:
        if self.uuid and uuid and uuid != self.uuid:
            what = "mount its own volume"
            raise Refusal(
                f"{serverdir} holds the data {uuid}, and {self._name} is a {self.kind} of the data {self.uuid}",
                hint=f"{what}, or empty it: deployer cluster renew {self.number}" if self._can_renew else what,
                code=ExitCode.REFUSED,
            )

    @property
    def _can_renew(self) -> bool:
        return self.is_replica and self.number is not None

    @property
    def _name(self) -> str:
        return "this server" if self.number is None else f"member {self.number}"


def nodeinfo(serverdir: Path) -> Mapping[str, Any]:
    """devpi's record of what a server is; empty when it is absent or damaged, or when somebody else has the directory,
    which is refused later, in words."""
    try:
        found = parsed((serverdir / NODEINFO).read_bytes())
    except (FileNotFoundError, PermissionError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def uuid_of(found: Mapping[str, Any]) -> str:
    """The uuid of the cluster's data, by devpi's record; empty for a replica that has never heard of its primary."""
    return str(found.get("primary-uuid" if found.get("role") == REPLICA else "uuid", ""))


def _names(found: Sequence[str]) -> tuple[str, ...]:
    """Raise Refusal for an invalid name of an index."""
    wrong = next((name for name in found if not is_index_name(name) or "," in name), None)
    if wrong is not None:
        raise Refusal(f"--files-on-demand {wrong}: no index", hint="write USER/INDEX", code=ExitCode.USAGE)
    return tuple(found)


def given(config: object) -> Role:
    """The role of this server. ``config``: devpi's."""
    found: Role | None = config.pluginmanager.get_plugin(NAME)  # type: ignore[attr-defined]
    return found or Role()


def take_secret(private: Private, file: str) -> None:
    """Have this server use the secret in ``file``, which all members share: it signs logins and their requests to each
    other. Raises Refusal."""
    try:
        secret = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"can't read the members' secret in {file}: {getattr(error, 'strerror', None) or 'it is not text'}",
            hint="make this user its owner",
            code=ExitCode.REFUSED,
        ) from None
    if len(secret) < SHORTEST_SECRET:
        raise Refusal(
            f"the members' secret in {file} is shorter than {SHORTEST_SECRET} characters",
            hint=f"write one: openssl rand -base64 48 > {file}",
            code=ExitCode.REFUSED,
        )
    if secret != read_text(private.secret):
        write_private(private.secret, secret)


def password_in(file: str) -> str:
    """Root's password for the first boot, which everybody who runs the cluster knows. Raises Refusal."""
    try:
        password = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"can't read root's password in {file}: {getattr(error, 'strerror', None) or 'it is not text'}",
            hint="make this user its owner",
            code=ExitCode.REFUSED,
        ) from None
    if not password:
        raise Refusal(f"root's password in {file} is empty", hint="write one to it", code=ExitCode.REFUSED)
    return password
