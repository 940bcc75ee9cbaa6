"""The variables that an engine's client adds to containers and builds by itself.

They often hold the password of a proxy, which ``inspect`` then shows. deployer decides about proxies by the profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployer.protocol import parsed
from deployer.spec import PROXY_VARIABLES

PASSED_ON = (*PROXY_VARIABLES, "FTP_PROXY", "ftp_proxy")
"""All that a client is known to add."""
_KEYS = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "allProxy": "ALL_PROXY",
    "ftpProxy": "FTP_PROXY",
}
"""Keys of ``proxies`` in the configuration of docker's client, and the variables that it sets from them."""


def nothing(env: Mapping[str, str]) -> tuple[str, ...]:
    """A client that adds nothing by itself."""
    return ()


def from_its_environment(env: Mapping[str, str]) -> tuple[str, ...]:
    """podman, which passes its own proxy variables on (podman-run(1), ``--http-proxy``)."""
    return PASSED_ON


def from_docker_config(env: Mapping[str, str]) -> tuple[str, ...]:
    """docker, from ``proxies`` of ``config.json`` in DOCKER_CONFIG or ``~/.docker``, for whatever engine it names.

    docker itself warns of a file that it can't read, and then adds nothing.
    """
    place = Path(env["DOCKER_CONFIG"]) if env.get("DOCKER_CONFIG") else Path(env.get("HOME", "/")) / ".docker"
    try:
        settings = parsed((place / "config.json").read_bytes())
    except (OSError, ValueError):
        return ()
    engines = _object(_object(settings).get("proxies")).values()
    names = (variable for key, variable in _KEYS.items() if any(_object(engine).get(key) for engine in engines))
    return tuple(spelt for name in names for spelt in (name, name.lower()))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
