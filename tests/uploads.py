"""Archives and forms as a client would upload them, hostile ones among them."""

from __future__ import annotations

import http.client
import io
import stat
import uuid
import zipfile
from collections.abc import Mapping
from typing import Any

PATIENCE = 120.0
PAGE = b"<html><head><title>Manual</title></head><body>findable<script>alert(1)</script></body></html>"
Member = tuple[str | zipfile.ZipInfo, bytes]


def archive(*members: Member, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as target:
        for name, content in members:
            target.writestr(name, content)
    return stream.getvalue()


def _special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (mode | 0o644) << 16
    return info


def _lying() -> bytes:
    """A member that states 10 bytes in the directory, and has 32 MiB."""
    content = archive(("index.html", bytes(32 << 20)))
    return content.replace((32 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))


HOSTILE = {
    "a name that leads up": archive(("index.html", PAGE), ("../../../../../PWN", b"")),
    "a name that leads up in the middle": archive(("a/../../../../../../PWN", b"")),
    "an absolute name": archive(("/PWN", b"")),
    "a name of Windows": archive(("..\\..\\PWN", b"")),
    "a line break in a name": archive(("a\nb", b"")),
    "a link": archive((_special("index.html", stat.S_IFLNK), b"/etc/passwd")),
    "a device": archive((_special("index.html", stat.S_IFCHR), b"")),
    "a FIFO": archive((_special("index.html", stat.S_IFIFO), b"")),
    "a file below a file": archive(("a", b""), ("a/b", b"")),
    "300 MB out of 306 kB": archive(*((f"{number}.html", bytes(30 << 20)) for number in range(10))),
    "20,000 members": archive(*((f"{number}", b"") for number in range(20_000))),
    "bz2": archive(("index.html", bytes(1 << 20)), method=zipfile.ZIP_BZIP2),
    "lzma": archive(("index.html", bytes(1 << 20)), method=zipfile.ZIP_LZMA),
    "no archive": b"<html></html>",
    "nothing": b"",
    "a name twice": archive(("index.html", PAGE), ("other.html", PAGE)).replace(b"other.html", b"index.html"),
}
LYING = _lying()


def post(
    port: int, auth: Mapping[str, str], index: str, fields: Mapping[str, Any], files: Mapping[str, tuple[str, bytes]]
) -> tuple[int, str]:
    """Upload as twine does; status and reason."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, (filename, content) in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        kind = f"multipart/form-data; boundary={boundary}"
        connection.request("POST", f"/{index}/", body=body, headers={**auth, "Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.reason
    finally:
        connection.close()


def documentation(
    port: int, auth: Mapping[str, str], content: bytes, *, name: str = "demo", version: str = "1.0"
) -> tuple[int, str]:
    """Upload documentation to ``root/dev``."""
    form = {":action": "doc_upload", "name": name, "version": version}
    return post(port, auth, "root/dev", form, {"content": (f"{name}.zip", content)})
