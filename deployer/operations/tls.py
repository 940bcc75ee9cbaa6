"""HTTPS of a deployment: its certificate on the way to the server, and its CA on the way to clients."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.certificates.pair import Pair
from deployer.deployment import certificate
from deployer.deployment.lock import hold
from deployer.deployment.record import read_applied
from deployer.deployment.server_dir import ServerDir
from deployer.errors import ConflictError
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.recorded import as_deployed
from deployer.plan.tls import TlsPlan
from deployer.spec import LABEL_TLS, State

if TYPE_CHECKING:
    from deployer.ui.output import UI


@dataclass(frozen=True, kw_only=True)
class Given:
    """The certificate that a server is to have."""

    plan: TlsPlan
    pair: Pair
    server_dir: ServerDir

    def hand_over(self, rollback: ExitStack) -> bool:
        """Give it to the server that runs; whether it is another one than before. Raises EngineError."""
        return certificate.hand_over(self.server_dir, self.pair, rollback)

    def hand_over_early(self, rollback: ExitStack) -> None:
        """Put it where a server finds it that is about to start, if that is a directory of this host."""
        certificate.hand_over_early(self.server_dir, self.pair, rollback)

    def hand_over_late(self, rollback: ExitStack) -> None:
        """Give it to a server that has just been started, which waits for it. Raises EngineError."""
        certificate.hand_over_late(self.server_dir, self.pair, rollback)

    def wait(self, ui: UI) -> None:
        """Wait until clients get it, and show where. Raises NotReadyError."""
        await_served(self.plan, self.pair, ui)


def await_served(plan: TlsPlan, pair: Pair, ui: UI) -> None:
    """Wait until clients get the certificate, and show where. Raises NotReadyError."""
    certificate.wait_served(plan.url, pair.shown.fingerprint)
    cure = "; CA for clients: deployer tls ca" if plan.own_ca else ""
    ui.step("tls", f"{plan.public} (certificate until {pair.shown.ends:%Y-%m-%d}{cure})")


def obtain(prepared: Prepared, rollback: ExitStack) -> Given | None:
    """The certificate that was planned, made if it is due; None without HTTPS. Raises ConflictError."""
    planned, plan = prepared.facts.certificate, prepared.plan.tls
    if planned is None or plan is None:
        return None
    network = prepared.loaded.profile.network
    pair = certificate.obtain(network, prepared.plan.name, planned, home=Path.home(), rollback=rollback)
    return Given(plan=plan, pair=pair, server_dir=prepared.server_dir)


@dataclass(frozen=True, kw_only=True)
class Renewed:
    """The certificate that the server has now; ``changed``: whether it had another one."""

    changed: bool
    ends: datetime
    fingerprint: str


def renew(profile: str, name: str, *, lock_wait: float) -> Renewed:
    """Give the server of ``name`` the certificate that its files hold now, or a new one of our own CA if it is due.

    A server that runs shows it when this returns. Raises ConflictError without HTTPS, NotReadyError, EngineError.
    """
    with hold(name, wait=lock_wait):
        return renew_held(profile, name)


def renew_held(profile: str, name: str) -> Renewed:
    """Like :func:`renew`; the caller holds the lock of the deployment."""
    ref, held = as_deployed(profile, name, ())
    prepared = prepare(ref, name, overrides=held)
    current = prepared.current
    if current is None:
        raise ConflictError(f"there is no deployment named {name!r}", hint="deployer up")
    url = current.labels.get(LABEL_TLS, "")
    with ExitStack() as rollback:
        given = obtain(prepared, rollback)
        if given is None or not url:
            raise ConflictError(
                f"{name} has no HTTPS", hint="deployer up --set network.tls.cert=auto, with its other options"
            )
        changed = given.hand_over(rollback)
        if current.state is State.RUNNING:
            certificate.wait_served(url, given.pair.shown.fingerprint)
        rollback.pop_all()
    shown = given.pair.shown
    return Renewed(changed=changed, ends=shown.ends, fingerprint=shown.fingerprint)


def differs(prepared: Prepared) -> tuple[str, bool] | None:
    """The certificate that is planned, and whether the server has another one; None without HTTPS."""
    planned, plan = prepared.facts.certificate, prepared.plan.tls
    if planned is None or plan is None:
        return None
    if planned.due:
        return f"{plan.public}: a certificate of our own CA, to be made for {', '.join(planned.names)}", True
    has = certificate.known(prepared.server_dir) if prepared.current is not None else None
    same = has is not None and has.shown.fingerprint == planned.fingerprint
    return f"{plan.public}: {planned.source}{'' if same else ', which the server does not have yet'}", not same


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The CA of a deployment. ``steps``: what points a client of another host at the index, by client."""

    path: Path
    text: str
    url: str
    simple_url: str

    @property
    def steps(self) -> tuple[tuple[str, str], ...]:
        index = self.simple_url
        return (
            ("address", index),
            ("pip", f"pip config set global.index-url {index}; pip config set global.cert /PATH/ca.pem"),
            ("uv", f"export UV_DEFAULT_INDEX={index} SSL_CERT_FILE=/PATH/ca.pem"),
            ("poetry", f"poetry source add team {index}; poetry config certificates.team.cert /PATH/ca.pem"),
            ("deployer", f"deployer clients apply --url {index} --ca /PATH/ca.pem"),
        )


def authority(name: str) -> Authority:
    """The CA that made the certificate of ``name``. Raises ConflictError when that is not one of our own."""
    applied = read_applied(name)
    if applied is None:
        raise ConflictError(f"there is no deployment named {name!r}", hint="deployer up")
    tls = applied.profile.get("network", {}).get("tls", {})
    if tls.get("cert") != "auto":
        what = (
            f"has the certificate of {tls['cert']}, whose CA is not deployer's" if tls.get("cert") else "has no HTTPS"
        )
        raise ConflictError(f"{name} {what}", hint="deployer up --set network.tls.cert=auto, with its other options")
    path = certificate.Kept.of(name).ca
    try:
        text = path.read_text()
    except OSError as error:
        raise ConflictError(f"{path} can't be read: {error.strerror}", hint="deployer up") from None
    index = "/".join(applied.simple_url.split("/")[-4:])
    return Authority(path=path, text=text, url=applied.public_url, simple_url=f"{applied.public_url}/{index}")
