"""What this server is among others: alone, the primary that is written to, or a replica that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployer.protocol import NODEINFO, ExitCode, Refusal, parsed
from deployer.server.devpi.installed import installed
from deployer.server.secret_files import Private, read_text, write_private

NAME = "deployer-role"
STANDALONE, PRIMARY, REPLICA = ROLES = ("standalone", "primary", "replica")
SHORTEST_SECRET = 32
"""Characters of the shortest secret: devpi refuses a shorter one."""


@dataclass(frozen=True)
class Role:
    """Registered as a devpi plugin, as :class:`deployer.server.hosts.KnownHosts` is.

    ``primary_url``: of a replica's primary, with a slash at the end. ``write_wait``: seconds for which a primary waits
    until all replicas have a write. ``upstream``: whether a replica fetches files from upstreams while its primary is
    down.
    """

    kind: str = STANDALONE
    primary_url: str = ""
    write_wait: float = 2.0
    upstream: bool = True

    @property
    def is_primary(self) -> bool:
        return self.kind == PRIMARY

    @property
    def is_replica(self) -> bool:
        return self.kind == REPLICA

    @property
    def words(self) -> tuple[str, ...]:
        """devpi's options."""
        if self.is_replica:
            return ("--role", REPLICA, "--primary-url", self.primary_url)
        return ("--role", PRIMARY) if self.is_primary else ()

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

    def check(self, serverdir: Path) -> None:
        """Raise Refusal for data of a server that had another role."""
        try:
            former = parsed((serverdir / NODEINFO).read_bytes())["role"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return
        if self.is_replica != (former == REPLICA):
            raise Refusal(
                f"{serverdir} holds the data of a {former}, and this server is a {self.kind}",
                hint="give a replica a directory of its own, which is empty at first",
                code=ExitCode.REFUSED,
            )


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
