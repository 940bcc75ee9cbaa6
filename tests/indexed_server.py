"""A server of ours with the indexes that tests of pages and files need, and a client that says what it sends."""

from __future__ import annotations

import http.client
import random
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from tests.server_process import request
from tests.upstream import JSON_TYPE, Distribution, Upstream, make_wheel

JSON = {"Accept": JSON_TYPE, "User-Agent": "pip/24.0"}
HTML = {"Accept": "text/html", "User-Agent": "pip/24.0"}
FILE = {"Accept": "*/*", "User-Agent": "pip/24.0", "Accept-Encoding": "identity"}
PATIENCE = 60.0


@dataclass(frozen=True)
class Got:
    """An answer, read to its end; ``whole`` is False where the body was shorter than promised."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    whole: bool = True


def get(port: int, path: str, headers: Mapping[str, str], method: str = "GET") -> Got:
    """One request on a connection of its own. Raises OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.headers.items()}
        try:
            return Got(answer.status, told, answer.read())
        except http.client.IncompleteRead as error:
            return Got(answer.status, told, error.partial, whole=False)
    finally:
        connection.close()


def at_once(port: int, asked: Sequence[tuple[str, Mapping[str, str]]]) -> list[Got]:
    """All of them at the same moment, each by a client of its own."""
    barrier = threading.Barrier(len(asked))

    def one(pair: tuple[str, Mapping[str, str]]) -> Got:
        barrier.wait()
        return get(port, *pair)

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(one, asked))


def make_indexes(port: int, auth: Mapping[str, str], upstream: Upstream, **mirror: object) -> None:
    """``root/pypi``, a mirror of ``upstream``, and ``root/dev`` on top of it."""
    told = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True, "volatile": True}
    stage = {"type": "stage", "bases": ["root/pypi"], "volatile": True}
    for index, body in (("root/pypi", {**told, **mirror}), ("root/dev", stage)):
        status, answer = request(port, "PUT", f"/{index}", body=body, headers=auth)
        assert status == 200, answer


class Listening(Protocol):
    """What listens on loopback."""

    port: int


def upload(server: Listening, auth: Mapping[str, str], index: str, wheel: Distribution) -> int:
    """Upload as twine does; the status."""
    boundary = uuid.uuid4().hex
    form = {":action": "file_upload", "name": wheel.project, "version": wheel.version, "metadata_version": "2.1"}
    fields = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form.items()
    )
    file = f'Content-Disposition: form-data; name="content"; filename="{wheel.filename}"'
    head = f"{fields}--{boundary}\r\n{file}\r\nContent-Type: application/octet-stream\r\n\r\n"
    body = head.encode() + wheel.content + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        kind = f"multipart/form-data; boundary={boundary}"
        connection.request("POST", f"/{index}/", body=body, headers={**auth, "Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def change(
    chance: random.Random,
    server: Listening,
    auth: Mapping[str, str],
    number: int,
    *,
    indexes: Sequence[str],
    names: Sequence[str],
) -> bool:
    """One write of any kind to ``root/pypi``, ``root/dev``, the users, or stages of ``indexes``; whether it was taken.

    ``number``: of nothing before, for what must be new.
    """
    name, index, port = chance.choice(names), chance.choice(indexes), server.port
    match chance.randrange(6):
        case 0 | 1:
            status = upload(server, auth, index, make_wheel(name, f"3.{number}"))
        case 2:
            status, _ = request(port, "DELETE", f"/{index}/{name}", headers=auth)
        case 3:
            told = chance.choice(["bases=root/pypi", "bases=", "mirror_whitelist=*", "mirror_whitelist="])
            status, _ = request(port, "PATCH", "/root/dev", body=[told], headers=auth)
        case 4:
            status, _ = request(port, "POST", f"/root/pypi/+simple/{name}/refresh", headers=auth)
        case _:
            status, _ = request(port, "PATCH", "/root", body={"email": f"{number}@example.com"}, headers=auth)
    return status in (200, 302)
