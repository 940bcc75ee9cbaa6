"""A visit that may change something: its session, its form, and the requests that it makes of the index."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import IO, Any

from deployer.distribution import Form
from deployer.server.json_text import loads
from deployer.server.web.catalog import Catalog
from deployer.server.web.site import Fetched, Visit

LONGEST = 2000
"""Characters of one field."""


class FormVisit(Visit):
    """``catalog``: all indexes."""

    def __init__(self, request: Any, catalog: Catalog) -> None:
        super().__init__(request)
        self.catalog = catalog
        self.method: str = request.method
        self.scripted: bool = request.headers.get("X-Requested-With") == "deployer"

    @cached_property
    def fields(self) -> Mapping[str, Sequence[str]]:
        """The fields of the form without its files."""
        found: dict[str, list[str]] = {}
        for key, value in self.request.POST.items() if self.method == "POST" else ():
            if isinstance(value, str):
                found.setdefault(key, []).append(value[:LONGEST])
        return found

    def field(self, name: str) -> str:
        """A field as one line; empty without it."""
        return "".join(letter for letter in self.secret(name) if letter.isprintable()).strip()

    def secret(self, name: str) -> str:
        """A field exactly as it was typed."""
        return "".join(self.fields.get(name, ())[-1:])

    def files(self, name: str) -> list[Any]:
        """The files of the form, each with ``filename`` and ``file``."""
        return [value for value in self.request.POST.getall(name) if getattr(value, "filename", "")]

    @cached_property
    def who(self) -> str | None:
        """The user of the session, as devpi verified it; None without a valid one."""
        if self.session is None:
            return None
        answer = self.fetch("/+api", accept="application/json")
        status = loads(answer.body)["result"]["authstatus"] if answer.status == HTTPStatus.OK else []
        return self.session.user if status[:2] == ["ok", self.session.user] else None

    def send(self, method: str, path: str, body: Mapping[str, object] | None) -> Fetched:
        """Make a request of the index's API in the user's name; ``path`` is quoted."""
        asked = self._asked(method, path)
        if body is not None:
            asked.body = json.dumps(body).encode()
            asked.content_type = "application/json"
        answer = self._request.invoke_subrequest(asked, use_tweens=True)
        return Fetched(answer.status_code, answer.body)

    def upload(self, path: str, form: Form, filename: str, content: IO[bytes]) -> Fetched:
        """Upload a file as twine does."""
        boundary = uuid.uuid4().hex
        with tempfile.TemporaryFile() as body:
            for name, values in form.items():
                for value in [values] if isinstance(values, str) else values:
                    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
                    body.write(head.encode() + value.encode(errors="replace") + b"\r\n")
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n'
            body.write(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n")
            content.seek(0)
            while block := content.read(1 << 20):
                body.write(block)
            body.write(f"\r\n--{boundary}--\r\n".encode())
            asked = self._asked("POST", path)
            asked.content_type = f"multipart/form-data; boundary={boundary}"
            asked.content_length = body.tell()
            body.seek(0)
            asked.body_file_raw = body
            answer = self._request.invoke_subrequest(asked, use_tweens=True)
            return Fetched(answer.status_code, answer.body)

    def _asked(self, method: str, path: str) -> Any:
        asked = type(self._request).blank(path, base_url=self._request.application_url, method=method)
        for key in ("REMOTE_ADDR", "HTTP_HOST", "SCRIPT_NAME", "wsgi.url_scheme"):
            if key in self._request.environ:
                asked.environ[key] = self._request.environ[key]
        asked.headers["Accept"] = "application/json"
        asked.environ |= self.known
        return asked

    @property
    def known(self) -> dict[str, str]:
        """What an inner request is made with, so that it is the user's."""
        return {"HTTP_X_DEVPI_AUTH": self.session.auth} if self.session else {}
