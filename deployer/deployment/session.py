"""A conversation with the server of a deployment in somebody's name, for the commands of daily work."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from deployer.deployment.find import Deployment, require
from deployer.deployment.passwords import forget_password, store_password, stored_password
from deployer.deployment.server_dir import ServerDir
from deployer.devpi.identity import Identity
from deployer.devpi.packages import PackageApi
from deployer.devpi.topology import ROOT
from deployer.errors import ConflictError, NotReadyError, ServerRefused
from deployer.readiness import check_ours
from deployer.secrets import Secret, generate
from deployer.spec import State
from deployer.ui.prompts import read_password


@dataclass(frozen=True, kw_only=True)
class Session:
    """``user`` is in whose name things are changed; ``deployment`` is None for a devpi that is not ours."""

    api: PackageApi
    identity: Identity
    user: str = "root"
    deployment: Deployment | None = None

    def login(self) -> PackageApi:
        """The API, logged in. Raises ConflictError when the password is not known here, ServerRefused when wrong."""
        password = self.password()
        try:
            self.api.login(self.user, password)
        except ServerRefused:
            if self.deployment is not None:
                raise
            # No password of this host was tried, so none is to be corrected here.
            raise ServerRefused(
                f"{self.api.url} does not let {self.user} in with that password",
                hint="give the right one, or name another user with --as",
            ) from None
        return self.api

    def password(self) -> Secret:
        """The stored password of the user; of a devpi that is not ours it is asked for."""
        if self.deployment is None:
            return read_password(self.user)
        if self.user == ROOT:
            password = root_password(self.deployment.name, self.deployment.server_dir, self.api.url)
        else:
            password = stored_password(self.deployment.name, self.user)
        if password is None:
            raise ConflictError(
                f"the password of {self.user} is not known here",
                hint=f"give it once: deployer secret set {self.user}; or act as another user with --as",
            )
        return password

    def remember(self, user: str, password: Secret) -> None:
        """Keep a password that the server has or is about to get."""
        if self.deployment is not None:
            store_password(self.deployment.name, user, password)

    def settle(self, user: str, password: Secret) -> None:
        """Keep for good, in the one place where it belongs, a password that the server has."""
        if self.deployment is not None and user == ROOT:
            settle_root(self.deployment.name, self.deployment.server_dir, password)

    def forget(self, user: str) -> None:
        if self.deployment is not None:
            forget_password(self.deployment.name, user)

    def new_password(self, user: str) -> Secret:
        """A generated password, stored before anybody has it."""
        password = generate()
        self.remember(user, password)
        return password


def root_password(name: str, place: ServerDir | None, url: str) -> Secret | None:
    """Root's password, which the server directory keeps, where it is one of our own server's.

    One that this host keeps beside it was given by hand, or belongs to a change that was cut short: then the server at
    ``url``, which must have shown who it is, says which of them is right, and that one is kept.
    """
    given, own = stored_password(name, ROOT), place.root_password() if place else None
    if given is None or own is None:
        return given or own
    if given == own:
        forget_password(name, ROOT)
        return own
    with PackageApi(url) as api:
        for password in (given, own):
            with suppress(ServerRefused):
                api.login(ROOT, password)
                settle_root(name, place, password)
                return password
    return given


def settle_root(name: str, place: ServerDir | None, password: Secret) -> None:
    """Have the server directory keep root's password, and this host no other beside it; one without a file for it
    belongs to a server that is not ours."""
    if place is None or (known := place.root_password()) is None:
        return
    if known != password:
        place.set_root_password(password)
    forget_password(name, ROOT)


@contextmanager
def connect(name: str, *, engine: str = "", url: str = "", user: str = "root") -> Iterator[Session]:
    """Talk to the deployment ``name``, once it has proved that it is that; or to any devpi at ``url``.

    Raises ConflictError when there is none or another server answers, NotReadyError when it does not run.
    """
    deployment = None if url else require(name, engine=engine)
    if deployment is not None and deployment.container.state is not State.RUNNING:
        raise NotReadyError(f"{name} does not run ({deployment.container.state})", hint="deployer up")
    if deployment is not None and (place := deployment.server_dir) is not None:
        place.require_data()
    with PackageApi(url or (deployment.url if deployment else "")) as api:
        nonce = secrets.token_hex(16)
        identity = api.identity(nonce)
        if deployment is not None and (place := deployment.server_dir) is not None:
            check_ours(api.url, identity, nonce=nonce, uuid=place.uuid(), key=place.proof_key())
        yield Session(api=api, identity=identity, user=user, deployment=deployment)
