"""The record of one supervised process: what it was started with, and what identifies it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from deployer.errors import EngineError
from deployer.files import write_private
from deployer.ownership import unreadable
from deployer.protocol import parsed
from deployer.spec import ContainerSpec, Mount, Port
from deployer.typed import built


@dataclass(frozen=True, kw_only=True)
class Start:
    """The fields of a spec that apply to a process."""

    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    command: tuple[str, ...] = ()
    restart: str = "unless-stopped"
    log_max_size: str = "10m"
    log_max_files: int = 3

    @classmethod
    def of(cls, spec: ContainerSpec) -> Start:
        kept = {one.name: getattr(spec, one.name) for one in fields(cls)}
        return cls(**(kept | {"labels": dict(spec.all_labels())}))


@dataclass(frozen=True, kw_only=True)
class Record:
    """``mark``: identifies the process for good (``proc.mark``); ``started_at``: RFC 3339."""

    env: Mapping[str, str]
    spec: Start
    pid: int = 0
    mark: str = ""
    started_at: str = ""


def read_record(path: Path) -> Record | None:
    """The record in the file ``path``; ``None`` when there is none. Raises EngineError when it is damaged."""
    try:
        return built(Record, parsed(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise EngineError(
            f"{path} is damaged", hint=f"stop the devpi-server of this deployment if it still runs, then: rm {path}"
        ) from None


def write_record(path: Path, record: Record) -> None:
    """Write ``record`` with mode 0600. Raises ConflictError."""
    write_private(path, json.dumps(asdict(record), indent=1) + "\n")
