"""Everything that deployer replaces in devpi's code, installed in one place (docs/reference/devpi-replaced.md)."""

from __future__ import annotations

from collections.abc import Callable

from deployer.server.devpi import (
    archives,
    guarded,
    mirror_auth,
    new_indexes,
    offline_requests,
    ordered,
    page_fetch,
    passwords,
    push,
    quotas,
    readable,
    relied_on,
    replication,
    uploads,
)
from deployer.server.devpi.installed import inside


def install(header_of: Callable[[str], str | None], *, web: bool, replica: bool = False) -> None:
    """Replace it all; to be called once, before devpi's application is made.

    ``header_of``: the Authorization header for a mirror's URL. ``web``: devpi-web is to run. ``replica``: this server
    follows a primary. Raises Refusal, before anything is replaced, for a devpi-server that lacks something that
    deployer relies on.
    """
    relied_on.check(web=web)
    ordered.install()
    page_fetch.install()
    offline_requests.install()
    if replica:
        replication.install()
    guarded.install()
    readable.install()
    inside().forget_serials()
    push.install()
    archives.install()
    uploads.install()
    quotas.install()
    new_indexes.install()
    mirror_auth.install(header_of)
    passwords.install()
    if relied_on.has_tokens():
        from deployer.server.devpi import tokens

        tokens.install()
    if relied_on.has_ldap():
        from deployer.server.devpi import ldap

        ldap.install()
    if web:
        from deployer.server.devpi import documentation

        documentation.install()
