"""Apply the declared users and indexes to a ready server, with the passwords that this needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.deployment.passwords import ROOT
from deployer.devpi.converge import converge, steps
from deployer.devpi.declared import wanted
from deployer.errors import NotReadyError, ServerRefused
from deployer.operations.declared import tell
from deployer.operations.prepare import Prepared
from deployer.readiness import Ready
from deployer.readiness.watch import lost
from deployer.secrets import Secret

if TYPE_CHECKING:
    from deployer.devpi.api import DevpiApi
    from deployer.devpi.change import Change


def seed(prepared: Prepared, ready: Ready, *, removing: bool) -> tuple[Change, ...]:
    """Apply users and indexes, then request the clients' index. Raises NotReadyError, ServerRefused."""
    try:
        changes = _converge(prepared, ready, removing=removing)
        ready.api.simple_status(prepared.plan.clients.index)
    except NotReadyError as error:
        raise lost(prepared.engine, prepared.plan.name) or error from None
    return changes


def _converge(prepared: Prepared, ready: Ready, *, removing: bool) -> tuple[Change, ...]:
    plan, api = prepared.plan, ready.api
    default = plan.default_upstream or ready.identity.default_mirror_url or ""
    goal = wanted(plan.users, plan.indexes, default_mirror_url=default)
    if ready.ours:
        api.read_as(ROOT, prepared.passwords.known(ROOT))
    found = steps(api, goal, removing=removing)
    if plan.image is not None and not plan.image.own:
        _login_foreign(prepared, api)
    converge(
        api,
        found,
        password=lambda: required_password(prepared),
        new_password=prepared.passwords.generate,
        forget=prepared.passwords.forget,
    )
    if plan.image is None or plan.image.own:
        tell(prepared.server_dir, api, goal, profile=plan.profile_name, changed=any(change.due for change in found))
    return found


def _login_foreign(prepared: Prepared, api: DevpiApi) -> None:
    """Log in to an image that is not ours. An empty root password is replaced by a generated one.

    Raises ServerRefused.
    """
    known = prepared.passwords.stored(ROOT)
    if known is not None:
        api.login(ROOT, known)
        return
    try:
        api.login(ROOT, Secret(""))
    except ServerRefused:
        raise ServerRefused(
            f"root's password in {prepared.plan.spec.image} is not known",
            hint="store it: deployer secret set root",
        ) from None
    api.set_password(ROOT, prepared.passwords.generate(ROOT))


def required_password(prepared: Prepared) -> Secret:
    """Root's. Raises ServerRefused when nobody here knows it."""
    password = prepared.passwords.valid(ROOT, prepared.plan.url)
    if password is None:
        raise ServerRefused(
            "root's password is not known: this data directory was made by another program",
            hint="store it: deployer secret set root",
        )
    return password
