"""What every child of the tests' fork server has imported: all of the command line, and nothing of the server."""

from __future__ import annotations

import importlib
import pkgutil

import pytest  # noqa: F401 - which multiprocessing imports once more in each child where pytest is the main program

import deployer
import tests.crash  # noqa: F401


def everything() -> None:
    """Import all of deployer but what runs inside the server."""
    for module in pkgutil.walk_packages(deployer.__path__, "deployer."):
        if not module.name.startswith("deployer.server"):
            importlib.import_module(module.name)


everything()
