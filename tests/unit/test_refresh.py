"""`deployer mirror refresh`: requests in portions that the server takes, and the output for each answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from deployer.commands.mirror.refresh import Options, run
from deployer.deployment import session as sessions
from deployer.deployment.session import Session
from deployer.devpi.api import ORDER_BYTES, ORDER_TRIES, DevpiApi
from deployer.devpi.identity import Identity
from deployer.devpi.topology import Node, Topology
from deployer.errors import ConflictError, DeployerError, NotReadyError, ServerRefused, UsageError
from deployer.operations.refresh import refresh
from deployer.protocol import REFRESH_ROUTE, Outcome, RefreshRequest, client_proof
from deployer.ui.output import UI

KEY, UUID = "5a" * 32, "ab" * 16
TOPOLOGY = Topology(
    indexes={
        name: Node(fields={"type": kind})
        for name, kind in (("root/pypi", "mirror"), ("root/other", "mirror"), ("root/dev", "stage"))
    }
)


class Server:
    """A server of ours, which checks proofs as ours does. ``rivals``: orders of others that come first.
    ``at_once``: projects that it has the time for."""

    def __init__(self, *, rivals: int = 0, challenge: str = "c", at_once: int = 1000) -> None:
        self.rivals = rivals
        self.at_once = at_once
        self.challenge = challenge
        self.asked: list[RefreshRequest] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != REFRESH_ROUTE:
            told = {"uuid": UUID, "server_version": "6.20.3", "challenge": self.challenge}
            return httpx.Response(200, stream=httpx.ByteStream(json.dumps(told).encode()))
        body = request.read()
        assert len(body) < 10_000
        wanted = RefreshRequest.parse(json.loads(body))
        assert wanted is not None
        if self.rivals:
            self.rivals -= 1
            self.challenge += "c"
        proof = client_proof(KEY, challenge=self.challenge, uuid=UUID, order=wanted.order)
        if proof != wanted.proof:
            return httpx.Response(403, stream=httpx.ByteStream(b'{"message": "invalid proof"}'))
        self.asked.append(wanted)
        names = wanted.projects or ("alpha", "beta", "gamma")
        found = dict.fromkeys(names, "left") | dict.fromkeys(names[: self.at_once], "changed")
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"projects": found}).encode()))

    @property
    def api(self) -> DevpiApi:
        return DevpiApi("http://127.0.0.1:1", transport=httpx.MockTransport(self))


def test_all_projects_are_one_order() -> None:
    server = Server()
    found = server.api.refresh("root/pypi", None, proof_key=KEY)
    assert found == dict.fromkeys(("alpha", "beta", "gamma"), Outcome.CHANGED)
    assert [wanted.projects for wanted in server.asked] == [None]


def test_what_the_server_had_no_time_for_is_asked_for_again() -> None:
    server = Server(at_once=1)
    found = server.api.refresh("root/pypi", None, proof_key=KEY)
    assert found == dict.fromkeys(("alpha", "beta", "gamma"), Outcome.CHANGED)
    assert [wanted.projects for wanted in server.asked] == [None, ("beta", "gamma"), ("gamma",)]
    with pytest.raises(NotReadyError):
        Server(at_once=0).api.refresh("root/pypi", None, proof_key=KEY)


def test_many_projects_are_asked_for_in_portions() -> None:
    server, names = Server(), tuple(f"project-{number:05}" for number in range(2000))
    found = server.api.refresh("root/pypi", names, proof_key=KEY)
    assert tuple(found) == names
    assert len(server.asked) == 1 + sum(len(name) + 4 for name in names) // ORDER_BYTES
    assert server.api.refresh("root/pypi", (), proof_key=KEY) == {}


def test_another_order_that_comes_first_does_no_harm() -> None:
    assert Server(rivals=ORDER_TRIES - 1).api.refresh("root/pypi", ("a",), proof_key=KEY) == {"a": Outcome.CHANGED}
    with pytest.raises(ServerRefused):
        Server(rivals=ORDER_TRIES).api.refresh("root/pypi", ("a",), proof_key=KEY)


def test_a_server_that_takes_no_orders_is_told() -> None:
    with pytest.raises(ServerRefused) as caught:
        Server(challenge="").api.refresh("root/pypi", None, proof_key=KEY)
    assert "not deployer's own server" in caught.value.message
    assert "mirror_cache_expiry" in caught.value.hint


class Api:
    """The part of the API that a refresh needs, with the outcomes of each mirror."""

    def __init__(self, **outcomes: dict[str, Outcome]) -> None:
        self.outcomes = outcomes
        self.asked: list[tuple[str, tuple[str, ...] | None]] = []

    def topology(self) -> Topology:
        return TOPOLOGY

    def refresh(self, index: str, projects: tuple[str, ...] | None, *, proof_key: str) -> dict[str, Outcome]:
        assert proof_key == KEY
        self.asked.append((index, projects))
        return self.outcomes.get(index.partition("/")[2], {})


def a_session(api: Api, *, offline: bool = False) -> Session:
    deployment = SimpleNamespace(proof_key=lambda *, otherwise: KEY)
    return Session(api=cast(Any, api), identity=Identity(uuid=UUID, offline=offline), deployment=cast(Any, deployment))


@pytest.mark.parametrize(
    ("index", "projects", "asked"),
    [
        ("", (), [("root/other", None), ("root/pypi", None)]),
        ("root/pypi", (), [("root/pypi", None)]),
        ("root/pypi", ("Some.Name", "some-name", "b"), [("root/pypi", ("some-name", "b"))]),
    ],
)
def test_which_mirrors_and_projects_are_asked_for(
    index: str, projects: tuple[str, ...], asked: list[tuple[str, tuple[str, ...] | None]]
) -> None:
    api = Api()
    refresh(a_session(api), index, projects)
    assert api.asked == asked


@pytest.mark.parametrize(
    ("index", "projects", "kind", "message", "hint"),
    [
        ("root/dev", (), ServerRefused, "root/dev is a stage index, not a mirror", "deployer index list --type mirror"),
        ("root/pypy", (), ServerRefused, "there is no index root/pypy", "did you mean 'root/pypi'?"),
        ("flask", (), ServerRefused, "there is no index flask", "deployer index list"),
        ("root/pypi", ("../x",), UsageError, "'../x' can't be a project's name", "letters"),
    ],
)
def test_what_cannot_be_refreshed_is_told_and_nobody_is_asked(
    index: str, projects: tuple[str, ...], kind: type[DeployerError], message: str, hint: str
) -> None:
    api = Api()
    with pytest.raises(kind) as caught:
        refresh(a_session(api), index, projects)
    assert (caught.value.message, hint in caught.value.hint) == (message, True)
    assert api.asked == []


def test_offline_says_how_to_go_online() -> None:
    api = Api()
    with pytest.raises(ConflictError) as caught:
        refresh(a_session(api, offline=True), "root/pypi", ())
    assert (caught.value.message, caught.value.hint) == (
        "the server is offline: it asks no upstream",
        "deployer offline off",
    )
    assert api.asked == []


def test_the_result_names_what_changed_and_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(
        pypi={"b": Outcome.CHANGED, "a": Outcome.CHANGED, "c": Outcome.UNCHANGED, "d": Outcome.GONE},
        other={"e": Outcome.NO_ANSWER},
    )

    class Opened:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> Session:
            return a_session(api)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(sessions, "connect", Opened)
    result = run(Options(), UI(quiet=True))
    assert result.data == {
        "mirrors": ["root/other", "root/pypi"],
        "changed": ["root/pypi/a", "root/pypi/b"],
        "unchanged": 1,
        "gone": ["root/pypi/d"],
        "unanswered": ["root/other/e"],
    }
    assert result.text.splitlines() == [
        "changed: 2 (root/pypi/a, root/pypi/b)",
        "unchanged: 1",
        "gone: 1 (root/pypi/d)",
        "no answer: 1 (root/other/e)",
    ]
    assert result.exit_code == 7
    assert result.error is not None
    assert result.error.message == "no answer from the upstream of root/other"
    del api.outcomes["other"]
    assert run(Options(index="root/pypi"), UI(quiet=True)).exit_code == 0
