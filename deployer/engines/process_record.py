"""The record of one supervised process: what it was started with, and what identifies it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from deployer.errors import EngineError
from deployer.files import write_private
from deployer.ownership import unreadable
from deployer.protocol import MADE, parsed
from deployer.spec import ContainerSpec, Mount, Port
from deployer.typed import built

ENV = frozenset(
    {
        *("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
        MADE,
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    }
)
"""Names of the variables that a plan gives a process. Others in a record would let its writer choose what runs."""


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
        record = built(Record, parsed(path.read_bytes()))
        return replace(record, env={key: value for key, value in record.env.items() if key in ENV})
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
