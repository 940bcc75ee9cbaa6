"""pip as a client: point it at the index, and back again."""

from deployer.clients.pip.client import Pip
from deployer.clients.pip.config import PipConfig
from deployer.clients.pip.origin import build_settings, upstream
from deployer.clients.pip.reading import read_config

__all__ = ["Pip", "PipConfig", "build_settings", "read_config", "upstream"]
