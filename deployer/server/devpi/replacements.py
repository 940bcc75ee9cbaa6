"""Everything that deployer replaces in devpi's code, installed in one place (docs/reference/devpi-replaced.md)."""

from __future__ import annotations

from collections.abc import Callable

from deployer.server.devpi import mirror_auth, ordered, page_fetch, passwords, push, relied_on


def install(header_of: Callable[[str], str | None]) -> None:
    """Replace it all; to be called once, before devpi's application is made.

    ``header_of``: the Authorization header for a mirror's URL. Raises Refusal, before anything is replaced, for a
    devpi-server that lacks something that deployer relies on.
    """
    relied_on.check()
    ordered.install()
    page_fetch.install()
    push.install()
    mirror_auth.install(header_of)
    passwords.install()
    if relied_on.has_tokens():
        from deployer.server.devpi import tokens

        tokens.install()
