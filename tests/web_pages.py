"""Requests of a browser, and distributions with metadata for its pages."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace

from tests.indexed_server import Got, get
from tests.upstream import Distribution, make_wheel

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}


def page(port: int, path: str, **headers: str) -> Got:
    """What a browser gets."""
    return get(port, path, {**BROWSER, **headers})


def described(
    name: str, version: str, readme: str, *, requires: Sequence[str] = (), kind: str = "text/markdown"
) -> Distribution:
    """A wheel with a description and other metadata."""
    wheel = make_wheel(name, version)
    told = [
        *("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", f"Summary: All of {name}, in order"),
        *("Author: Ada", "License-Expression: MIT", "Requires-Python: >=3.9"),
        *(f"Project-URL: Source, https://example.com/{name}", f"Description-Content-Type: {kind}"),
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as former, zipfile.ZipFile(buffer, "w") as archive:
        for info in former.infolist():
            is_metadata = info.filename.endswith("/METADATA")
            content = "\n".join([*told, "", readme]).encode() if is_metadata else former.read(info)
            archive.writestr(zipfile.ZipInfo(info.filename), content)
    return replace(wheel, content=buffer.getvalue())
