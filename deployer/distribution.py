"""Wheels and source distributions: their metadata, as the upload API takes it. Pure, but for the stream that is read.

Both the command line and the server read them, so this file is copied into the image, too.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from typing import IO, Any

MAX_METADATA = 16 * 1024 * 1024
"""Largest metadata of a distribution in bytes."""
_LIST_FIELDS = {"platforms": "platform", "supported_platforms": "supported_platform", "license_files": "license_file"}
_ZIPPED = {".whl": r"[^/]+\.dist-info/METADATA", ".zip": r"[^/]+/PKG-INFO"}
"""Where the metadata stand in a zip archive, by the end of its name."""
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, KeyError, EOFError, NotImplementedError)

Form = dict[str, str | list[str]]


class NotADistribution(ValueError):
    """The file is neither a wheel nor a source distribution."""


class Misnamed(ValueError):
    """Its metadata is of another release than its name; the message says which."""


def upload_form(filename: str, stream: IO[bytes]) -> Form:
    """The form of an upload, without digests; ``stream`` is seekable. Raises NotADistribution, Misnamed, OSError."""
    from packaging.metadata import parse_email
    from packaging.version import Version

    try:
        content = _metadata(filename, stream)
    except _DAMAGED:
        raise NotADistribution(filename) from None
    except OSError as error:
        if error.strerror is None:  # gzip raises this for invalid content
            raise NotADistribution(filename) from None
        raise
    raw, _ = parse_email(content)
    name, version = raw.get("name", ""), raw.get("version", "")
    try:
        parsed = Version(version)
    except ValueError:  # also for a number of thousands of digits
        parsed = None
    named = version_of(filename)
    if named is None or not name or named != parsed or not _starts(filename, name):
        raise Misnamed(f"{name} {version}")
    wheel = filename.endswith(".whl")
    return {
        ":action": "file_upload",
        "protocol_version": "1",
        "filetype": "bdist_wheel" if wheel else "sdist",
        "pyversion": filename.split("-")[-3] if wheel else "source",
        **_fields(dict(raw)),
    }


def version_of(filename: str) -> Any:
    """The version in the name of a wheel or sdist; None for any other file."""
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

    try:
        return parse_wheel_filename(filename)[1] if filename.endswith(".whl") else parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename, ValueError):
        return None


def _starts(filename: str, name: str) -> bool:
    from packaging.utils import canonicalize_name

    return canonicalize_name(filename).startswith(canonicalize_name(name) + "-")


def _metadata(filename: str, stream: IO[bytes]) -> bytes:
    kind = next((end for end in _ZIPPED if filename.endswith(end)), "")
    if kind:
        with zipfile.ZipFile(stream) as archive:
            found = [name for name in archive.namelist() if re.fullmatch(_ZIPPED[kind], name)]
            if len(found) != 1:
                raise KeyError("it has no metadata")
            with archive.open(found[0]) as member:
                return _capped(member.read(MAX_METADATA + 1))
    with tarfile.open(fileobj=stream) as archive:
        for one in archive:
            # Only read, never unpacked: any directory name is safe.
            if one.isfile() and re.fullmatch(r"[^/]+/PKG-INFO", one.name.removeprefix("./")):
                content = archive.extractfile(one)
                return _capped(content.read(MAX_METADATA + 1)) if content else b""
    raise KeyError("it has no PKG-INFO")


def _capped(data: bytes) -> bytes:
    if len(data) > MAX_METADATA:
        raise KeyError("its metadata is far too long")
    return data


def _fields(raw: dict[str, Any]) -> Form:
    fields: Form = {}
    for key, value in raw.items():
        match value:
            case str():
                fields[key] = value
            case dict():
                fields[key] = [f"{label}, {url}" for label, url in value.items()]
            case list() if key == "keywords":
                fields[key] = ",".join(value)
            case list():
                fields[_LIST_FIELDS.get(key, key)] = value
            case _:
                pass
    return fields
