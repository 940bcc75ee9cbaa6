"""Programs that install Python packages: which are here, and whose files they read. Data, and one look at PATH."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from deployer.clients.client import Account


@dataclass(frozen=True, kw_only=True)
class Known:
    """A client by the programs that are it, the first one found counting.

    ``reads``: the clients whose files it reads; itself where it has files. ``note``: what its user should know.
    ``cure``: how to point it at the index where no file can.
    """

    programs: tuple[str, ...]
    reads: tuple[str, ...]
    note: str = ""
    cure: str = ""

    def found(self, account: Account) -> str:
        """The path of its program; empty when there is none."""
        path = account.env.get("PATH", "")
        return next((found for name in self.programs if (found := shutil.which(name, path=path))), "")


KNOWN: Mapping[str, Known] = {
    "pip": Known(programs=("pip", "pip3"), reads=("pip",)),
    "uv": Known(programs=("uv",), reads=("uv",), note="uv ignores pip.conf"),
    "poetry": Known(programs=("poetry",), reads=("poetry",), note="poetry ignores pip.conf"),
    "pdm": Known(programs=("pdm",), reads=("pdm",), note="pdm ignores pip.conf"),
    "hatch": Known(
        programs=("hatch",),
        reads=("pip", "uv"),
        note="hatch installs with pip, or with uv where an environment says so",
    ),
    "pipx": Known(programs=("pipx",), reads=("pip", "uv"), note="with uv as its back end, pipx ignores pip.conf"),
    "pip-tools": Known(programs=("pip-compile",), reads=("pip",), note="pip-compile writes the index into its output"),
    "conda": Known(
        programs=("conda", "mamba", "micromamba"),
        reads=("pip",),
        note="only the pip step of an environment file; conda's own packages come from its channels",
    ),
    "pex": Known(
        programs=("pex",),
        reads=(),
        note="pex ignores the files and variables of pip",
        cure="pass it with each command: pex --use-pip-config …",
    ),
}
"""All clients, each after those whose files it reads."""
