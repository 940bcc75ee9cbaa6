"""Compare the pages that are served with the database: files that are gone, other hashes, and uploads that are missing.

A page is compared with what the database says of stages, whose files are here. What a page says of a mirror's files is
the upstream's word, which is kept elsewhere.
"""

from __future__ import annotations

import gzip
import html
import posixpath
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deployer.protocol import parsed
from deployer.server.devpi.stored import Stored

_LINK = re.compile(r'<a [^>]*?href="([^"]*)"')
_INSTALLED = (".whl", ".tar.gz", ".zip")
_SEPARATORS = re.compile(r"[-_.]+")


@dataclass(frozen=True)
class Known:
    """What the database says: files by their path, uploads by index and project, and the types of all indexes."""

    files: Mapping[str, Stored]
    types: Mapping[str, str]
    uploads: Mapping[tuple[str, str], frozenset[str]]


def known(files: Mapping[str, Stored], types: Mapping[str, str]) -> Known:
    uploads: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path, file in files.items():
        index, name = "/".join(path.split("/")[:2]), path.rpartition("/")[2]
        if types.get(index) == "stage" and name.endswith(_INSTALLED) and not name.endswith(".doc.zip"):
            uploads[index, _normal(file.project)].add(path)
    return Known(files, types, {key: frozenset(paths) for key, paths in uploads.items()})


def pages(directory: Path) -> Iterator[Path]:
    """The directories of the stored pages: USER/INDEX/PROJECT below ``directory``."""
    yield from (path for path in sorted(directory.glob("*/*/[!.]*")) if path.is_dir())


def wrong(page: Path, said: Known) -> str:
    """Why a page does not say what the database says; empty when it does. Raises OSError when it is gone."""
    user, index, project = page.parts[-3:]
    stage = f"{user}/{index}"
    if stage not in said.types:
        return f"there is no index {stage}"
    for name, read in (("json", _of_json), ("html", _of_html)):
        try:
            content = (page / name).read_bytes()
        except FileNotFoundError:
            continue
        try:
            packed = gzip.decompress((page / f"{name}.gz").read_bytes())
            links = read(content)
        except FileNotFoundError:
            continue  # it is just being written, or dropped
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError):
            return f"{name} is damaged"
        if packed != content:
            return f"{name}.gz differs from {name}"
        if why := _difference(stage, project, links, said):
            return f"{name}: {why}"
    return ""


def _difference(stage: str, project: str, links: Mapping[str, str], said: Known) -> str:
    here = {_path(stage, project, link): digest for link, digest in links.items()}
    for path, digest in here.items():
        index = "/".join(path.split("/")[:2])
        if said.types.get(index, "mirror") == "mirror" or "/+f/" not in path:
            continue
        file = said.files.get(path)
        if file is None:
            return f"{path} is not in the database"
        if digest and digest != file.sha256:
            return f"{path} has another hash than in the database"
    missing = said.uploads.get((stage, project), frozenset()) - here.keys()
    return f"{min(missing)} is missing" if missing else ""


def _path(stage: str, project: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(f"/{stage}/+simple/{project}", link)).lstrip("/")


def _of_json(content: bytes) -> Mapping[str, str]:
    return {
        str(file["url"]).partition("#")[0]: str(file["hashes"].get("sha256", "")) for file in parsed(content)["files"]
    }


def _of_html(content: bytes) -> Mapping[str, str]:
    found = (html.unescape(link).partition("#sha256=") for link in _LINK.findall(content.decode()))
    return {link.partition("#")[0]: digest for link, _, digest in found}


def _normal(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()
