"""ETags of pages: the same for the same content, from nginx, from the middleware, and from each member of a cluster.

nginx makes an ETag of a file's mtime and size (its ngx_http_set_etag). So a stored page has an mtime that is made of
its content; it is never sent as a date.
"""

from __future__ import annotations

import hashlib

_LATEST = 2**31
"""The end of the times that every file system can store (inode(7): 2038)."""


def moment(content: bytes) -> int:
    """The mtime of a stored page."""
    return int.from_bytes(hashlib.sha256(content).digest()[:4]) % _LATEST


def tag(content: bytes) -> str:
    """The ETag of a page, without quotes, as nginx sends it."""
    return f"{moment(content):x}-{len(content):x}"
