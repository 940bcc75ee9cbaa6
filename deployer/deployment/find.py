"""Find an existing deployment and its engine, by asking the engines."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deployer.deployment.cluster import elsewhere, server_of
from deployer.deployment.passwords import Passwords
from deployer.deployment.record import Applied, read_applied
from deployer.deployment.server_dir import ServerDir
from deployer.engines.base import Engine
from deployer.errors import ConflictError, EngineError, Refused
from deployer.ownership import user_name
from deployer.spec import LABEL_PROFILE, LABEL_URL, LABEL_USER, PREVIOUS, Container, EngineName


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """An existing container (or process) of ours, in any state. ``cluster``: the name of the cluster on this host whose
    primary it is; empty otherwise."""

    name: str
    engine: Engine
    container: Container
    applied: Applied | None = None
    cluster: str = ""

    @property
    def url(self) -> str:
        """The address of the server on this host; empty when its label is gone."""
        return self.container.labels.get(LABEL_URL, "")

    @property
    def simple_url(self) -> str:
        """The index address that the last ``up`` gave to clients; empty when unknown."""
        return self.applied.simple_url if self.applied else ""

    @property
    def profile_name(self) -> str:
        return self.container.labels.get(LABEL_PROFILE, "")

    @property
    def server_dir(self) -> ServerDir | None:
        return ServerDir.of(self.engine, self.container)

    def proof_key(self, *, otherwise: str) -> str:
        """The key of proofs to the server. Raises ConflictError with the hint ``otherwise`` when it can't be read."""
        key = self.server_dir.proof_key() if self.server_dir else None
        if not key:
            raise ConflictError(
                f"no access to the data directory of {self.name}, or its image is not deployer's own", hint=otherwise
            )
        return key

    @property
    def passwords(self) -> Passwords:
        return Passwords(name=self.cluster or self.name, server_dir=self.server_dir)


def candidates(wanted: str, applied: Applied | None) -> tuple[EngineName, ...]:
    """The engines to ask, the last known one of the deployment first."""
    if wanted:
        return (EngineName(wanted),)
    first = (EngineName(applied.engine),) if applied and applied.engine in set(EngineName) else ()
    return (*first, *(name for name in EngineName if name not in first))


def find(name: str, *, engine: str = "") -> Deployment | None:
    """Find the deployment ``name``; ``None`` when there is none. Of a cluster on this host: the server of its primary.

    An engine that does not answer is skipped, unless it is named or is the last known one of the deployment: then the
    deployment is not 'absent' but unknown, which is an error.

    Raises EngineUnreachable; ConflictError when the name belongs to a container that is not ours.
    """
    from deployer.engines import open_engine

    applied, cluster = read_applied(name), ""
    if (server := server_of(name)) != name:
        name, cluster = server, name
    engine = "" if engine == "auto" else engine
    for engine_name in candidates(engine, applied):
        opened = None
        container = None
        try:
            opened = open_engine(engine_name)
            container = opened.inspect(name) or _set_aside(opened, name)
        except EngineError:
            if engine or (applied and applied.engine == engine_name):
                raise
        if opened is None or container is None:
            continue
        if container.ours:
            if container.of_another(os.geteuid()):
                owner = _user(container.labels[LABEL_USER])
                raise ConflictError(
                    f"the deployment {name!r} on {engine_name} belongs to {owner}",
                    hint=f"choose another name with --name, or run it as {owner}",
                )
            return Deployment(name=name, engine=opened, container=container, applied=applied, cluster=cluster)
        raise ConflictError(
            f"a container named {name!r} exists on {engine_name} and is not deployer's",
            hint="name another deployment with --name",
        )
    return None


def _user(label: str) -> str:
    return user_name(int(label)) if label.isdecimal() else f"uid {label!r}"


def _set_aside(engine: Engine, name: str) -> Container | None:
    """The previous container that an interrupted run renamed; another container of that name is not ours."""
    found = engine.inspect(name + PREVIOUS)
    return found if found is not None and found.ours else None


def require(name: str, *, engine: str = "") -> Deployment:
    """As :func:`find`. Raises ConflictError when there is none, Refused for a cluster on other hosts."""
    if (place := elsewhere(name)) and not engine:
        raise Refused(
            f"{name} runs on {place}, and this command needs a server on this host",
            hint="run commands about users, indexes, packages and tokens only",
        )
    deployment = find(name, engine=engine)
    if deployment is None:
        raise ConflictError(f"there is no deployment named {name!r}", hint="deployer up")
    return deployment
