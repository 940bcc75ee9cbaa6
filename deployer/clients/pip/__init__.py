"""pip as a client: point it at the index, and back again."""

from deployer.clients.pip.config import PipConfig
from deployer.clients.pip.configuring import ClientChange, configure, preview, undo
from deployer.clients.pip.origin import build_settings, upstream
from deployer.clients.pip.places import SCOPES, target
from deployer.clients.pip.reading import read_config
from deployer.clients.pip.risks import overridden
from deployer.clients.pip.settings import PipSettings, environment, past_the_proxy

__all__ = [
    "SCOPES",
    "ClientChange",
    "PipConfig",
    "PipSettings",
    "build_settings",
    "configure",
    "environment",
    "overridden",
    "past_the_proxy",
    "preview",
    "read_config",
    "target",
    "undo",
    "upstream",
]
