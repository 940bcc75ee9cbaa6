"""Open the pages of a deployment in the browser of this host."""

from __future__ import annotations

import os
import sys
import webbrowser

from deployer.deployment.find import require
from deployer.devpi.api import DevpiApi


def address(name: str, engine: str, *, login: bool) -> str:
    """The address of the deployment ``name``; with ``login`` it logs root in, once and within a minute.

    Raises ServerRefused when the server's pages have no login (``server.web``), ConflictError, NotReadyError.
    """
    deployment = require(name, engine=engine)
    if not login:
        return f"{deployment.url}/"
    with DevpiApi(deployment.url) as api:
        key = deployment.proof_key(otherwise="run it as the user of the server, or with --anonymous")
        return f"{deployment.url}/+web/once?code={api.one_time_login(proof_key=key)}"


def show(where: str) -> bool:
    """Start the browser; whether there is one. A browser of a terminal would take this terminal: not that one."""
    graphical = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if sys.platform == "linux" and not graphical:
        return False
    try:
        return webbrowser.open(where)
    except webbrowser.Error:
        return False
