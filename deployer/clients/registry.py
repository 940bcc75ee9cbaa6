"""The clients that deployer knows, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deployer.clients.client import Client, ClientFile
from deployer.clients.pdm import Pdm
from deployer.clients.pip import Pip
from deployer.clients.poetry import Poetry
from deployer.clients.uv import Uv

if TYPE_CHECKING:
    from deployer.profile.types import ClientName

CLIENT_FILES: Mapping[ClientName, ClientFile] = {
    "pip": Pip(),
    "uv": Uv(),
    "poetry": Poetry(),
    "pdm": Pdm(),
}
"""Those with a file: what ``clients.configure`` of a profile may name."""

CLIENTS: tuple[Client, ...] = tuple(CLIENT_FILES.values())
"""All of them: what one command is pointed at the index for."""
