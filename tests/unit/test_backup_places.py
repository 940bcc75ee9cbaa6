"""Which places of backups and data are refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.errors import Refused
from deployer.operations.backup import check_apart, check_reachable
from deployer.spec import EngineInfo, EngineName, Mount

VOLUME = Mount(kind="volume", source="packages", target="/data")
BIND = Mount(kind="bind", source="/srv/devpi", target="/data")


def facts(*, rootless: bool) -> EngineInfo:
    return EngineInfo(name=EngineName.PODMAN, version="4.3.1", rootless=rootless)


def test_a_volume_of_a_rootless_engine_is_refused() -> None:
    with pytest.raises(Refused, match="rootless podman can't carry backups between the volume packages"):
        check_reachable(VOLUME, facts(rootless=True))
    check_reachable(VOLUME, facts(rootless=False))
    check_reachable(BIND, facts(rootless=True))


def test_backups_and_data_lie_apart() -> None:
    for directory in ("/srv/devpi", "/srv/devpi/backups", "/srv"):
        with pytest.raises(Refused, match="overlap"):
            check_apart(BIND, Path(directory))
    check_apart(BIND, Path("/srv/backups"))
    check_apart(VOLUME, Path("/srv/devpi"))
