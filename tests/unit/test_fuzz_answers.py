"""Whatever an engine or a server answers, it is understood or told as an error of ours: never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.commands import audit
from deployer.devpi.answers import Reply, line
from deployer.devpi.difference import changes
from deployer.devpi.export import exported
from deployer.devpi.identity import Identity, verify
from deployer.devpi.packages import PackageApi
from deployer.devpi.topology import Topology
from deployer.engines.answers import container_from, image_from
from deployer.engines.argv import ArgvEngine
from deployer.engines.dialects import Dialect, dialect_of
from deployer.engines.failures import last_line, meant
from deployer.engines.ports import holder_of
from deployer.engines.timestamps import moment
from deployer.errors import DeployerError
from deployer.host.runner import Completed, Runner
from deployer.operations.move import _copied
from deployer.operations.status import _identity, _object
from deployer.protocol import About, NamesAnswer, OfflineRequest, Refusal, is_nonce, parse_size, parsed, same_proof
from deployer.readiness.probe import _complete, _parse
from deployer.spec import Container, EngineName, Port
from deployer.typed import built
from tests.contract.test_recorded_answers import RECORDINGS
from tests.fuzzed import changed, written

DIALECTS = [dialect for name in EngineName if (dialect := dialect_of(name)) is not None]
ANSWERS = {path.stem: json.loads(path.read_text())["answers"] for path in RECORDINGS.glob("*.json")}


def recorded() -> Iterator[Any]:
    """The JSON of every answer that engines really gave."""
    for answers in ANSWERS.values():
        for answer in answers.values():
            with suppress(ValueError):
                yield json.loads(answer["stdout"])


DOCUMENTS = list(recorded())
INSPECTED = [tree for tree in DOCUMENTS if isinstance(tree, list) and tree and isinstance(tree[0], dict)]
engine_json = written(*DOCUMENTS)
texts = st.text(max_size=60) | st.sampled_from(["9" * 5000, "\x1b[2J", '"' * 9, "a" * 100_000])
dialects = st.sampled_from(DIALECTS)


class Says(Runner):
    """A client that says ``stdout`` and ``stderr`` and ends with ``code``."""

    def __init__(self, stdout: str, stderr: str = "", code: int = 0) -> None:
        super().__init__()
        self._said = (code, stdout, stderr)

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        code, stdout, stderr = self._said
        return Completed(argv=tuple(argv), returncode=code, stdout=stdout, stderr=stderr)


def sound(container: Container | None) -> None:
    """Everything that is read of a container has its type."""
    if container is None:
        return
    assert all(isinstance(text, str) for pair in container.labels.items() for text in pair)
    assert all(isinstance(word, str) for word in container.command)
    assert all(isinstance(mount.source, str) for mount in container.mounts)
    assert container.pid is None or isinstance(container.pid, int)
    container.of_another(0)


ASKED: list[Callable[[ArgvEngine], object]] = [
    lambda engine: sound(engine.inspect("devpi")),
    lambda engine: [sound(one) for one in engine.containers()],
    lambda engine: engine.volume("v"),
    lambda engine: engine.probe(),
    lambda engine: engine.images.find("image"),
    lambda engine: engine.images.tags("repository"),
    lambda engine: engine.images.remove("image"),
    lambda engine: engine.start("devpi"),
]


@given(
    dialect=dialects,
    content=engine_json,
    stderr=texts,
    code=st.sampled_from([0, 0, 0, 1, 125]),
    ask=st.sampled_from(ASKED),
)
def test_an_engine(
    dialect: Dialect, content: bytes, stderr: str, code: int, ask: Callable[[ArgvEngine], object]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", "unix:///nowhere")  # so that it is asked whether it is rootless
        patch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
        try:
            ask(ArgvEngine(dialect, runner=Says(content.decode("utf-8", "replace"), stderr, code)))
        except DeployerError as error:
            assert error.message


@given(dialect=dialects, tree=changed(*(tree[0] for tree in INSPECTED)))
def test_what_is_inspected(dialect: Dialect, tree: Any) -> None:
    if not isinstance(tree, dict):
        return
    with suppress(DeployerError):
        sound(container_from(tree, dialect))
    with suppress(DeployerError):
        assert all(isinstance(name, str) for name in image_from(tree, "ref").names)


@given(dialect=dialects, text=texts)
def test_the_words_of_an_engine(dialect: Dialect, text: str) -> None:
    assert last_line(text)
    assert meant(text, last_line(text), dialect=dialect) is None or text
    holder_of(Port(host_ip="127.0.0.1", host_port=0, container_port=1), text)
    with suppress(DeployerError):
        moment(text)


SIMPLE = {
    "meta": {"api-version": "1.0"},
    "name": "demo",
    "files": [
        {"filename": "demo-1.0.tar.gz", "url": "../+f/a/demo-1.0.tar.gz#sha256=1", "hashes": {"sha256": "1"}},
        {"filename": "../evil", "url": "http://[", "hashes": None, "requires-python": ">=3"},
    ],
}
PROJECT = {
    "type": "projectconfig",
    "result": {"1.0": {"+links": [{"rel": "releasefile", "href": "/a/b#sha256=1", "hash_spec": "sha256=1"}]}},
}
TOKENS = {"type": "tokens-info", "result": {"tokens": {"id": {"restrictions": ["expires=1"]}}}}
TOKEN = {"type": "token-info", "result": {"token": "secret"}}
PUSHED = {"type": "actionlog", "result": [[200, "store_releasefile", "demo-1.0.tar.gz"]]}
CALLS: list[Callable[[PackageApi], object]] = [
    lambda api: api.files("root/dev", "demo"),
    lambda api: api.uploaded("root/dev", "demo"),
    lambda api: api.tokens("root"),
    lambda api: api.new_token("root", allowed=("pkg_read",), expires=1, indexes=(), projects=()),
    lambda api: api.push("root/dev", "demo", "1.0", target="root/prod"),
    lambda api: api.remove("root/dev", "demo"),
    lambda api: api.topology(),
    lambda api: api.identity(),
]


@given(
    content=written(SIMPLE, PROJECT, TOKENS, TOKEN, PUSHED),
    status=st.sampled_from([200, 200, 404, 403, 500]),
    call=st.sampled_from(CALLS),
)
def test_a_server(content: bytes, status: int, call: Callable[[PackageApi], object]) -> None:
    with PackageApi("http://127.0.0.1:1") as api, pytest.MonkeyPatch.context() as patch:
        patch.setattr(api._http, "request", lambda *_, **__: Reply(status=status, body=content))
        try:
            call(api)
        except DeployerError as error:
            assert "\n" not in error.message


USERS = {
    "root": {
        "username": "root",
        "indexes": {
            "dev": {"type": "stage", "bases": ["root/pypi"], "volatile": True, "acl_upload": ["root"]},
            "pypi": {"type": "mirror", "mirror_url": "http://a/simple/", "mirror_cache_expiry": 1800},
        },
    }
}


@given(tree=changed(USERS))
def test_users_and_indexes(tree: Any) -> None:
    if not isinstance(tree, dict):
        return
    try:
        found = Topology.parse(tree)
    except ValueError:
        return
    with suppress(DeployerError):
        changes(found, Topology.parse(USERS))
    with suppress(DeployerError):
        exported(found)


ABOUT = {"uuid": "a" * 32, "version": "1", "server_version": "6.20.3", "free_bytes": 5, "writable": True, "proof": "x"}


@given(content=written(ABOUT, {"offline": True, "proof": "x"}))
def test_the_protocol(content: bytes) -> None:
    reply = Reply(status=200, body=content)
    answer = reply.json() or {}
    about = About.parse(answer)
    assert about == About.parse(about.json)
    identity = Identity.of_ours(answer)
    Identity.of_any(answer)
    verify(identity, nonce="0" * 32, proof_key="ab" * 32)
    _identity({"status": answer, "identity": _object(answer)})
    request = OfflineRequest.parse(answer)
    assert request is None or request == OfflineRequest.parse(request.json)
    assert line(reply.start).isprintable()


@given(text=texts)
def test_words_of_the_protocol(text: str) -> None:
    lines = text.splitlines()
    refusal = Refusal.parse(lines)
    assert refusal is None or Refusal.parse(refusal.text.splitlines()) is not None
    is_nonce(text)
    same_proof("a", text)
    with suppress(ValueError):
        assert parse_size(text) > 0
    raw = text.encode("utf-8", "surrogatepass")
    _complete(bytearray(raw))
    answer = _parse(b"HTTP/1.1 " + raw)
    assert answer.text and answer.devpi in (True, False)


NAMES = {
    "index": "root/dev",
    "projects": [{"name": "demo", "known_in": ["root/dev"], "owner": None, "served_by": ["root/dev"]}],
    "left_out": 0,
}


@given(content=written(NAMES, {"files": 1, "bytes": 2, "sha256": "a"}))
def test_the_audit_and_the_copier(content: bytes) -> None:
    with suppress(ValueError):
        found = built(NamesAnswer, parsed(content))
        assert audit._text("root/dev", [{**project, "got": {}, "ok": True} for project in found["projects"]])
    with suppress(ValueError, DeployerError):
        _copied(parsed(content))
