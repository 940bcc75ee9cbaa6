"""What the real clients send, as ``python -m tools.client_requests`` recorded it, and what they downloaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.upstream import Distribution, make_sdist, make_wheel

RECORDED = Path(__file__).with_name("recorded") / "client_requests.json"
BACKEND = """\
from pathlib import Path

INFO = "Metadata-Version: 2.1\\nName: from-source\\nVersion: 1.0\\n"


def prepare_metadata_for_build_wheel(directory, settings=None):
    info = Path(directory) / "from_source-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(INFO)
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return info.name


def build_wheel(directory, settings=None, metadata=None):
    import zipfile

    name = "from_source-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory) / name, "w") as archive:
        archive.writestr("from_source.py", "")
        archive.writestr("from_source-1.0.dist-info/METADATA", INFO)
        archive.writestr("from_source-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n")
        archive.writestr("from_source-1.0.dist-info/RECORD", "")
    return name
"""
"""A build system (PEP 517) that needs nothing."""
_BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
DISTRIBUTIONS: tuple[Distribution, ...] = (
    make_wheel("demo", "1.0", requires=("some-thing",)),
    make_sdist("from-source", "1.0", files={"pyproject.toml": _BUILD, "backend.py": BACKEND}),
    make_wheel("some-thing", "2.0"),
    make_wheel("locally-changed", "1.0+team.1"),
)
"""Always the same bytes, so that the addresses of the files are the recorded ones."""
UPLOADED: tuple[Distribution, ...] = (make_wheel("uploaded", "1.0"),)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request: ``target`` is path and query as they stood in the first line."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def json(self) -> dict[str, Any]:
        return {"request": f"{self.method} {self.target}", "headers": [list(header) for header in self.headers]}


def recorded() -> dict[str, tuple[Sent, ...]]:
    """What each client sent, by its name and version."""
    return {
        f"{name} {client['version']}": tuple(
            Sent(
                method=one["request"].split(" ", 1)[0],
                target=one["request"].split(" ", 1)[1],
                headers=tuple((name, value) for name, value in one["headers"]),
            )
            for one in client["requests"]
        )
        for name, client in json.loads(RECORDED.read_text()).items()
    }
