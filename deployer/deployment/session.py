"""A session with the server of a deployment, as one of its users."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from deployer.deployment.find import Deployment, require
from deployer.devpi.identity import Identity
from deployer.devpi.packages import PackageApi
from deployer.errors import ConflictError, NotReadyError, ServerRefused
from deployer.readiness import check_ours
from deployer.secrets import Secret, generate
from deployer.spec import State
from deployer.ui.prompts import read_password


@dataclass(frozen=True, kw_only=True)
class Session:
    """``user`` is logged in for writes; ``deployment`` is None for a devpi that is not ours."""

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
            # The password was typed in, so the hint must not name a stored one.
            raise ServerRefused(
                f"{self.api.url} rejected the password of {self.user}",
                hint="give the right password, or name another user with --as",
            ) from None
        return self.api

    def password(self) -> Secret:
        """The stored password of the user; for a devpi that is not ours, ask for it. Raises ConflictError."""
        if self.deployment is None:
            return read_password(self.user)
        password = self.deployment.passwords.valid(self.user, self.api.url)
        if password is None:
            raise ConflictError(
                f"the password of {self.user} is not stored on this host",
                hint=f"store it: deployer secret set {self.user}; or name another user with --as",
            )
        return password

    def changing(self, user: str, password: Secret) -> AbstractContextManager[None]:
        """As :meth:`Passwords.changing`; nothing is kept of a devpi that is not ours."""
        return nullcontext() if self.deployment is None else self.deployment.passwords.changing(user, password)

    def forget(self, user: str) -> None:
        """Remove the password of a user who was deleted."""
        if self.deployment is not None:
            self.deployment.passwords.forget(user)

    def new_password(self, user: str) -> Secret:
        """Generate a password and store it before the server gets it."""
        return generate() if self.deployment is None else self.deployment.passwords.generate(user)


@contextmanager
def connect(name: str, *, engine: str = "", url: str = "", user: str = "root") -> Iterator[Session]:
    """Open a session with the deployment ``name``, after its proof of identity; or with any devpi at ``url``.

    Raises ConflictError when there is none or another server answers, NotReadyError when it does not run.
    """
    deployment = None if url else require(name, engine=engine)
    if deployment is not None and deployment.container.state is not State.RUNNING:
        raise NotReadyError(f"{name} is not running ({deployment.container.state})", hint="deployer up")
    if deployment is not None and (place := deployment.server_dir) is not None:
        place.require_data()
    with PackageApi(url or (deployment.url if deployment else "")) as api:
        nonce = secrets.token_hex(16)
        identity = api.identity(nonce)
        if (
            deployment is not None
            and (place := deployment.server_dir) is not None
            and check_ours(api.url, identity, nonce=nonce, uuid=place.uuid(), key=place.proof_key())
        ):
            api.read_as(user, deployment.passwords.known(user))
        yield Session(api=api, identity=identity, user=user, deployment=deployment)
