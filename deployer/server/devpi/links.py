"""Where devpi puts a mirrored file: the path follows from the hash that its page names, or from its address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

CHECKED = ("sha256", "sha512", "sha384", "sha224", "blake2b", "blake2s", "sha1", "md5")
"""The kinds of hashes that a file is checked by. Others are only passed on."""
_DIGEST = re.compile(r"[0-9a-f]{32,128}")


def digest(file: Mapping[str, Any]) -> tuple[str, str] | None:
    """The kind and value of the hash that names the place of a file object (PEP 691); None without one."""
    hashes = file["hashes"]
    kind = "sha256" if "sha256" in hashes else next((kind for kind in hashes if kind in CHECKED), "")
    value = hashes.get(kind)
    return (kind, value) if type(value) is str and _DIGEST.fullmatch(value) else None


def place(file: Mapping[str, Any]) -> str:
    """The path of a file object below its index (``+f/…``, ``+e/…``), as devpi's ``key_from_link`` makes it."""
    found = digest(file)
    if found is not None:
        value = found[1]
        return f"+f/{value[:3]}/{value[3:16]}/{file['filename']}"
    parts = urlsplit(file["url"])
    above = f"{parts.scheme}/{parts.netloc}{parts.path}".rpartition("/")[0]
    directory = unquote(re.sub("[^a-zA-Z0-9_.-]", "_", above.replace("/", "_")))
    return f"+e/{directory}/{file['filename']}"
