"""The front answers as the server behind it: a thousand requests of any kind, while indexes change and others ask."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

import pytest

from tests.contained import Contained
from tests.front import PIP, UV, Answer, ask, need_nginx
from tests.indexed_server import JSON, change, make_indexes
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_sdist, make_wheel

ROUNDS = 1000
NAMES = ("demo", "many", "some-thing")
STAGES = ("root/dev", "root/team", "root/alone", "root/first")
INDEXES = ("root/pypi", *STAGES)
AGENTS = (PIP["User-Agent"], UV["User-Agent"], "Mozilla/5.0", "x pip/1", "curl/8")
ACCEPTS = (
    *(PIP["Accept"], UV["Accept"], "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html", "*/*", None),
    *("application/json", "text/plain", "text/html;q=0.1, */*;q=0.2", "application/vnd.pypi.simple.v1+json"),
    *("application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.latest+json"),
)
METHODS = (*["GET"] * 12, "HEAD", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH")
VALIDATORS = ("If-None-Match", "If-Modified-Since")
ODD = (
    *("/", "/root", "/root/dev", "/root/pypi", "/root/first", "/+api", "/+login", "/nobody", "/favicon.ico", "//"),
    *("/root/nothing/+simple/demo/", "/root/dev/+simple/Demo/", "/root/dev/+simple/demo", "/root/dev/demo"),
    *("/root/pypi/+simple/some_thing/", "/root/dev/+simple/some.thing/", "/root/dev/+simple/%64emo/"),
    *("/root//dev/+simple/demo/", "/root/dev/./+simple/demo/", "/root/dev/x/../+simple/demo/", "/root/dev/demo/1.0"),
    *("/root/dev/%2Bsimple/demo/", "/root/dev/+simple/demo//", "/root/dev/+simple/.../", "/root/dev/+simple/-/"),
    *("/.deployer/root-password", "/.sqlite", "/+files/root/dev", "/.deployer/pages/root/dev/demo/json"),
    *("/root/dev/+f/../../../.deployer/secret", "/root/dev/+f/..%2f..%2f..%2f.deployer/secret", "/root/dev/+f/"),
    *("/root/pypi/+f/000/0123456789abc/demo-1.0-py3-none-any.whl", "/root/dev/+simple/no-such-project/"),
)


@dataclass
class Known:
    """What the test has come to know: addresses of files, and by what a front tells that one is unchanged."""

    files: list[str] = field(default_factory=list)
    validators: dict[str, dict[str, str]] = field(default_factory=dict)  # path: its ETag and Last-Modified


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    many = [make_wheel("many", f"1.{number}") for number in range(100)]
    with Upstream([make_wheel("demo", "1.0"), make_sdist("demo", "1.1"), make_wheel("some-thing", "2.0"), *many]) as it:
        yield it


@pytest.fixture
def server(anywhere: Server, upstream: Upstream) -> Server:
    """A server with an index of each type, each below another one."""
    if not isinstance(anywhere, Contained):
        need_nginx()
    running = anywhere.start("--front", "nginx")
    auth = running.auth
    make_indexes(running.port, auth, upstream)
    above = {
        "root/team": {"type": "stage", "bases": ["root/dev"], "volatile": True},
        "root/alone": {"type": "stage", "bases": [], "volatile": True},
        "root/first": {
            "type": "ordered",
            "bases": ["root/alone", "root/pypi"],
            "volatile": True,
            "owns": ["root/alone:some-*"],
        },
    }
    for index, body in above.items():
        status, answer = request(running.port, "PUT", f"/{index}", body=body, headers=auth)
        assert status == 200, answer
    return running


@pytest.mark.endurance_of("docker")
def test_a_thousand_random_requests_get_what_the_server_behind_answers(server: Server) -> None:
    chance = random.Random(20261125)
    auth, behind = server.auth, server.private / "run" / "devpi"
    password = b64encode(f"root:{server.password}".encode()).decode()
    known, seen, differing = Known(), Counter[str](), []
    with others(server):
        for number in range(ROUNDS):
            if chance.random() < 0.05:
                seen["change"] += change(chance, server, auth, number, indexes=STAGES, names=NAMES)
            if number % 20 == 0:
                learn(server, known, chance.choice(INDEXES), chance.choice(NAMES))
            asked = anything(chance, known, (auth, {"Authorization": f"Basic {password}"}))
            front, own = (ask(where, asked.path, asked.headers, method=asked.method) for where in (server.port, behind))
            seen[kind(front)] += 1
            if not agree(asked, front, own, known):
                differing.append((number, asked, material(front), material(own)))
    assert not differing, f"{len(differing)} differ\n" + "\n".join(map(str, differing[:20]))
    # Else there was nothing to compare.
    assert seen["change"] > ROUNDS / 50, seen
    assert all(seen[what] > ROUNDS / 100 for what in ("page", "part", "unchanged", "refused", "absent")), seen


@contextlib.contextmanager
def others(server: Server) -> Iterator[None]:
    """Two clients that ask for pages all the time."""
    stop = threading.Event()

    def client(seed: int) -> None:
        own = random.Random(seed)
        while not stop.is_set():
            ask(server.port, f"/{own.choice(INDEXES)}/+simple/{own.choice(NAMES)}/", own.choice((PIP, UV, JSON)))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def learn(server: Server, known: Known, index: str, name: str) -> None:
    """Fetch a few files of a page: then they are here."""
    page = f"/{index}/+simple/{name}/"
    answer = ask(server.port, page, PIP)
    files = json.loads(answer.plain)["files"] if answer.status == 200 else []
    for path in {urljoin(page, file["url"]).partition("#")[0] for file in files[:2] + files[-2:]}:
        told = ask(server.port, path).headers
        until(lambda path=path: (server.serverdir / "+files" / path[1:]).exists())  # type: ignore[misc]
        # What is sent while it comes lacks headers that it has from then on.
        if "etag" in told:
            known.validators[path] = {"If-None-Match": told["etag"], "If-Modified-Since": told["last-modified"]}
        known.files.append(path)


def anything(chance: random.Random, known: Known, logins: tuple[dict[str, str], ...]) -> Asked:
    """One request. Those that would change something come from nobody, and are refused."""
    file = chance.choice(known.files[-30:] or ["/"])
    page = f"/{chance.choice(INDEXES)}/+simple/{chance.choice(NAMES)}/"
    near = (f"{file}.metadata", f"{file}/", file.replace("+f", "%2Bf"), file.replace("root", "ROOT"), file[:-1])
    path = chance.choice((chance.choice(ODD), page, page, page, page, file, file, file, file, chance.choice(near)))
    path += chance.choice((*[""] * 9, "?", "?x=1", "?no_projects="))
    method = chance.choice(METHODS)
    headers = {"Host": "index-example", "User-Agent": chance.choice(AGENTS)}
    if accept := chance.choice(ACCEPTS):
        headers["Accept"] = accept
    if chance.random() < 0.3:
        headers["Accept-Encoding"] = chance.choice(("gzip", "gzip, deflate", "identity", "gzip;q=0", "br"))
    if chance.random() < 0.05:
        headers["X-Devpi-Absolute-Urls"] = "1"
    if method in ("GET", "HEAD", "OPTIONS") and chance.random() < 0.1:
        headers |= chance.choice(logins)
    elif chance.random() < 0.05:
        headers["Authorization"] = "Basic eDp5"  # nobody's
    if chance.random() < 0.3:
        ranges = ("0-9", "10-19", "5-", "-5", "0-", "999999999-", "9-3", "0-0,5-6", "x", "0-999999999")
        headers["Range"] = f"bytes={chance.choice(ranges)}"
    validators = {"If-None-Match": '"other"', "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
    if path in known.validators and chance.random() < 0.7:
        validators = known.validators[path]
    if chance.random() < 0.3:
        name = chance.choice((*VALIDATORS, "If-Range"))
        headers[name] = validators["If-None-Match" if name == "If-Range" else name]
    return Asked(method, path, headers)


def kind(answer: Answer) -> str:
    """What a front's answer shows of: a page that was at hand, a file's part, ..."""
    if answer.status == 200:
        return "page" if answer.headers.get("cache-control") == "no-cache" else "other"
    return {206: "part", 304: "unchanged", 401: "refused", 403: "refused", 404: "absent"}.get(answer.status, "other")


def agree(asked: Asked, front: Answer, own: Answer, known: Known) -> bool:
    """Whether both say the same. Of a file a front may send what was asked for only, where devpi sends the whole."""
    match front.status:
        case 206 | 416 if own.status == front.status:
            same = front.status == 416 or front.body == own.body
            return same and front.headers["content-range"] == own.headers["content-range"]
        case 206:
            return own.status == 200 and is_part(asked, front, own)
        case 304:
            sent = {name: asked.headers[name] for name in VALIDATORS if name in asked.headers}
            is_file = own.status in (200, 206, 416)
            return is_file and bool(sent) and sent.items() <= known.validators.get(asked.path, {}).items()
        case 416:
            told = front.headers["content-range"]
            return own.status == 200 and "Range" in asked.headers and told == f"bytes */{length(own)}"
        case _:
            return material(front) == material(own)


def is_part(asked: Asked, front: Answer, own: Answer) -> bool:
    if front.headers["content-type"].startswith("multipart/byteranges"):
        parts = (b"%d-%d/%d\r\n\r\n" % (a, b, length(own)) + own.body[a : b + 1] + b"\r\n" for a, b in ((0, 0), (5, 6)))
        return asked.method == "HEAD" or all(part in front.body for part in parts)
    told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", front.headers["content-range"])
    assert told is not None
    first, last, whole = map(int, told.groups())
    wanted = b"" if asked.method == "HEAD" else own.body[first : last + 1]
    return (front.body, int(front.headers["content-length"]), whole) == (wanted, last - first + 1, length(own))


def length(answer: Answer) -> int:
    return int(answer.headers["content-length"])


def material(answer: Answer) -> tuple[object, ...]:
    """What a client acts upon."""
    names = ("content-type", "location", "cache-control", "www-authenticate", "x-devpi-api-version", "allow")
    vary = {word.strip().lower() for word in answer.headers.get("vary", "").split(",")} - {"", "accept-encoding"}
    told = {name: answer.headers[name].lower() for name in names if name in answer.headers}
    if "max-age=365000000" in told.get("cache-control", "") or answer.headers.get("content-type", "").endswith(
        "v1+json"
    ):
        told.pop("x-devpi-api-version", None)  # of use to devpi's own client, which asks for neither
    if "html" in told.get("content-type", ""):
        told.pop("x-devpi-api-version", None)
    if vary == {"accept", "user-agent"}:
        told.pop("cache-control", None)  # a page that was just made carries none, a warm one says what is so anyway
    return answer.status, re.sub(rb"0x[0-9a-f]+", b"0x", answer.plain), sorted(vary), told
