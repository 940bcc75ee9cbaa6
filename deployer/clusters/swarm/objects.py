"""What a swarm keeps of a cluster beside its services: the network, the secrets, and which member is the primary."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deployer.clusters.base import Identity
from deployer.clusters.swarm import names
from deployer.clusters.swarm.docker import Docker
from deployer.engines.answers import at
from deployer.errors import ConflictError, EngineError
from deployer.protocol import parsed
from deployer.secrets import generate
from deployer.spec import LABEL_NAME
from deployer.typed import built


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept as a config of docker's. ``home``: the ID of the node with the volumes, if no nodes are named."""

    primary: int = 0
    uuid: str = ""
    home: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(primary=self.primary, uuid=self.uuid)


class Objects:
    """The objects of the deployment ``name``. They outlive its services: its volumes are of no use without them."""

    def __init__(self, name: str, docker: Docker) -> None:
        self._name, self._docker = name, docker
        self._label = f"--label={LABEL_NAME}={name}"

    def kept(self) -> Kept | None:
        """What is kept; None without a cluster. Raises ConflictError when somebody else has made it unreadable."""
        version = self._newest("config", names.IDENTITY)
        if not version:
            return None
        config = names.versioned(self._name, names.IDENTITY, version)
        found = self._docker.listed(self._docker.checked("config", "inspect", config))
        try:
            return built(Kept, parsed(base64.b64decode(str(at(found[0], "Spec", "Data") or ""))))
        except (ValueError, IndexError):
            raise ConflictError(
                f"docker's config {config} is not deployer's",
                hint=f"choose another name with --name, or: docker config rm {config}",
            ) from None

    def keep(self, kept: Kept) -> None:
        """Keep another value: under a new name, since docker never changes a config; the former ones go."""
        version = self._newest("config", names.IDENTITY) + 1
        text = json.dumps(asdict(kept)) + "\n"
        self._docker.told(
            "config", "create", self._label, names.versioned(self._name, names.IDENTITY, version), "-",
            stdin=text.encode(),
        )  # fmt: skip
        former = [one for one in self._named("config", names.IDENTITY) if not one.endswith(f".{version}")]
        if former:
            self._docker.checked("config", "rm", *former)

    def secrets(self) -> Mapping[str, int]:
        """The version of each secret; 0 where there is none."""
        return {secret: self._newest("secret", secret) for secret in names.SECRETS}

    def have_secrets(self) -> Mapping[str, int]:
        """The same, after the missing ones were made. No command line holds their values."""
        for secret, version in self.secrets().items():
            if not version:
                words = ("secret", "create", self._label, names.versioned(self._name, secret, 1), "-")
                self._docker.told(*words, stdin=generate().reveal().encode())
        return self.secrets()

    def subnet(self) -> str:
        """The addresses of the network of members; empty without it."""
        found = self._docker.inspected("network", (names.full(self._name, names.NETWORK),))
        configs: Any = at(found[0], "IPAM", "Config") if found else None
        return str(configs[0].get("Subnet") or "") if configs else ""

    def have_network(self) -> str:
        """The same, after it was made. Members talk in plain HTTP: between nodes the network encrypts it."""
        if not (found := self.subnet()):
            words = ("--driver=overlay", "--opt=encrypted=true", self._label, names.full(self._name, names.NETWORK))
            self._docker.checked("network", "create", *words)
            found = self.subnet()
        if not found:
            raise EngineError(
                f"the network {names.full(self._name, names.NETWORK)} has no subnet", hint="deployer down"
            )
        return found

    def remove(self) -> None:
        """Remove what deployer made of it; what somebody else made stays."""
        for kind, parts in (("secret", names.SECRETS), ("config", (names.IDENTITY,))):
            made = {str(row.get("Name")) for row in self._docker.rows(kind, "ls", f"--filter=label={self._ours}")}
            if found := [one for part in parts for one in self._named(kind, part) if one in made]:
                self._docker.checked(kind, "rm", *found)

    @property
    def _ours(self) -> str:
        return f"{LABEL_NAME}={self._name}"

    def _newest(self, kind: str, part: str) -> int:
        return names.newest(self._listed(kind, part), self._name, part)

    def _named(self, kind: str, part: str) -> list[str]:
        return [one for one in self._listed(kind, part) if names.newest((one,), self._name, part)]

    def _listed(self, kind: str, part: str) -> list[str]:
        rows = self._docker.rows(kind, "ls", f"--filter=name={names.full(self._name, part)}")
        return [str(row.get("Name")) for row in rows]
