"""What may be uploaded, beyond devpi's own checks: names that are file names, and documentation within bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from devpi_server.views import PyPIView, abort_submit

from deployer.server.devpi import archives

LONGEST = 240
"""Bytes of a file name. File systems allow 255; devpi appends to it."""
_SUBMIT = "submit"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # the core metadata specification
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")
_WITH_FILE = ("doc_upload", "file_upload")


def install() -> None:
    """Replace devpi's view for uploads by one that checks first."""
    submit = getattr(PyPIView, _SUBMIT)

    def checked(self: Any) -> Any:
        # Others get devpi's own answer, which tells them nothing of their upload.
        if self.request.has_permission("upload") and (why := _problem(self.request.POST)):
            abort_submit(self.request, 400, why)
        return submit(self)

    setattr(PyPIView, _SUBMIT, checked)


def _problem(form: Mapping[str, Any]) -> str:
    """Why an upload is refused; empty when devpi may decide."""
    action, content = form.get(":action"), form.get("content")
    for key, value in form.items():
        if not isinstance(value, str) and key not in ("content", "gpg_signature"):
            return f"the field {key} is a file"
    name, version = form.get("name", ""), form.get("version", "")
    if not _NAME.fullmatch(name):
        return f"invalid project name {name[:80]!a}"
    # devpi takes documentation without a version.
    if not _VERSION.fullmatch(version) and (version or action != "doc_upload"):
        return f"invalid version {version[:80]!a}"
    if len(f"{name}-{version}.doc.zip") > LONGEST:
        return f"name and version are longer than {LONGEST} bytes"
    if action not in _WITH_FILE or content is None:
        return ""
    filename = getattr(content, "filename", None)
    if not isinstance(filename, str):
        return "the field content is not a file"
    if action == "doc_upload":
        why = archives.problem(content.file)
        return f"documentation is refused: {why}" if why else ""
    if not _FILE.fullmatch(filename) or len(filename) > LONGEST:
        return f"invalid file name {filename[:80]!a}"
    return ""
