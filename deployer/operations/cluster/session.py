"""A session with a server of this host, or with a cluster on a Swarm or Kubernetes, as one of its users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from deployer.clusters.base import Cluster
from deployer.deployment import session
from deployer.deployment.cluster import elsewhere
from deployer.deployment.passwords import ROOT, Passwords
from deployer.deployment.session import Session
from deployer.devpi.packages import PackageApi
from deployer.errors import ConflictError, EngineError
from deployer.secrets import Secret
from deployer.ui.output import UI


@dataclass(frozen=True, kw_only=True)
class ClusterSession(Session):
    """``name``: of the deployment."""

    name: str
    cluster: Cluster

    def password(self) -> Secret:
        known = self.cluster.password() if self.user == ROOT else Passwords(name=self.name).stored(self.user)
        if known is None:
            raise ConflictError(
                f"the password of {self.user} is not stored on this host", hint="name another user with --as"
            )
        return known

    @contextmanager
    def changing(self, user: str, password: Secret) -> Iterator[None]:
        with Passwords(name=self.name).changing(user, password):
            yield
        if user == ROOT:
            self._keep(password)

    def _keep(self, password: Secret) -> None:
        """Give the primary root's new password, which every host that reaches the cluster reads there."""
        identity = self.cluster.identity()
        primary = identity.primary if identity is not None else 0
        done = self.cluster.exec(primary, ("secret", "set", ROOT), stdin=f"{password.reveal()}\n".encode())
        if done.returncode:
            raise EngineError(
                f"member {primary} did not store root's new password: {done.stderr.strip()[-300:]}",
                hint=f"deployer logs --member {primary}",
            )

    def forget(self, user: str) -> None:
        Passwords(name=self.name).forget(user)

    def new_password(self, user: str) -> Secret:
        return Passwords(name=self.name).generate(user)


def connect(name: str, *, engine: str = "", url: str = "", user: str = ROOT) -> AbstractContextManager[Session]:
    """Open a session with the server at ``url``, or that of the deployment ``name``, wherever it is.

    Raises as :func:`deployer.deployment.session.connect`, and EngineError where a place does not answer.
    """
    if url or not elsewhere(name):
        return session.connect(name, engine=engine, url=url, user=user)
    return _elsewhere(name, user)


@contextmanager
def _elsewhere(name: str, user: str) -> Iterator[Session]:
    from deployer.operations.cluster.places import open_kept

    cluster = open_kept(name, UI(quiet=True))
    assert cluster is not None  # noqa: S101 - it is kept
    with cluster.reach() as url, PackageApi(url) as api:
        found = ClusterSession(api=api, identity=api.identity(), user=user, name=name, cluster=cluster)
        api.read_as(ROOT, cluster.password())
        yield found
