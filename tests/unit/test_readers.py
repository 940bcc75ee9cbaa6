"""Who may read an index, whom nginx answers, and what a request is about."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from pathlib import Path

import pytest

from deployer.server.guard.grants import SECONDS, Credential, Grants
from deployer.server.guard.readers import FIELD, InvalidReaders, Readers, checked, principals
from deployer.server.guard.rules import Rules
from deployer.server.guard.sendable import Sendable
from deployer.server.middleware.reading import EVERYTHING, LISTS, NOTHING, Subject, subject
from deployer.server.mirrors.canonical_links import CanonicalLinks
from deployer.server.nginx import memory
from tests.views import documented

ANYBODY, ALICE, BOB, ROOT = (principals(user) for user in (None, "alice", "bob", "root"))
CONFIGS = {
    "root/open": {},
    "root/none": {FIELD: []},
    "root/alice": {FIELD: ["alice"]},
    "root/group": {FIELD: [":dev"]},
    "root/users": {FIELD: [":AUTHENTICATED:"]},
    "root/all": {FIELD: ["alice", ":ANONYMOUS:"]},
    "root/broken": {FIELD: 7},
    "root/above": {"bases": ["root/open", "root/alice"]},
    "root/top": {"bases": ["root/above"], FIELD: [":AUTHENTICATED:"]},
    "root/both": {"bases": ["root/alice"], FIELD: ["bob"]},
    "root/ring": {"bases": ["root/other"]},
    "root/other": {"bases": ["root/ring", "root/users"]},
    "root/gone": {"bases": ["root/missing"]},
}
READERS = Readers.of(CONFIGS, at=7)
MAY = {
    "root/open": "anybody alice bob dev root",
    "root/none": "root",
    "root/alice": "alice root",
    "root/group": "dev root",
    "root/users": "alice bob dev root",
    "root/all": "anybody alice bob dev root",
    "root/broken": "root",
    "root/above": "alice root",
    "root/top": "alice root",
    "root/both": "root",
    "root/ring": "alice bob dev root",
    "root/other": "alice bob dev root",
    "root/gone": "anybody alice bob dev root",
    "root/unknown": "anybody alice bob dev root",
}
WHO = {"anybody": ANYBODY, "alice": ALICE, "bob": BOB, "dev": principals("carol", ["dev"]), "root": ROOT}


@pytest.mark.parametrize("index", MAY)
def test_readers_are_those_of_the_index_and_of_all_that_it_inherits_from(index: str) -> None:
    assert {name for name, who in WHO.items() if READERS.may(who, index)} == set(MAY[index].split())


def test_a_replica_gets_all_that_it_is_to_serve() -> None:
    assert all(READERS.may(principals("+replica"), index) for index in CONFIGS)


def test_what_not_everybody_reads_is_protected() -> None:
    assert READERS.protected == {index for index in CONFIGS if "anybody" not in MAY[index].split()}


@pytest.mark.parametrize("value", [["@dev"], [7], {"alice": 1}, 7, ["two words"], b"alice"])
def test_a_list_that_can_not_be_used_is_refused(value: object) -> None:
    with pytest.raises(InvalidReaders):
        checked(value)


def test_a_list_is_stored_in_one_form() -> None:
    assert checked("bob, alice,:authenticated:") == [":AUTHENTICATED:", "alice", "bob"]
    assert checked(()) == []


@pytest.mark.parametrize(
    ("path", "about"),
    [
        ("/root/secret/+simple/demo/", Subject(("root/secret",))),
        ("//root//secret/+f/ab/cd/demo.whl", Subject(("root/secret",))),
        ("/root/secret", Subject(("root/secret",))),
        ("/root/open/../secret/+simple/demo/", None),
        ("/root/./secret", None),
        ("/", LISTS),
        ("//", LISTS),
        ("/root/", LISTS),
        ("/root/+tokens", NOTHING),
        ("/root/+new-view", EVERYTHING),
        ("/+search", EVERYTHING),
        ("//+search", EVERYTHING),
        ("/+new-view", EVERYTHING),
        ("/+api", NOTHING),
        ("/+api/", EVERYTHING),
        ("/+deployer/names", Subject(("root/a", "root/b"))),
        ("/+authcheck", Subject(("root/original",))),
    ],
)
def test_what_a_request_is_about(path: str, about: Subject | None) -> None:
    assert subject(path, ["root/a", "root/b"], "/root/original/+f/x") == about


def test_every_view_of_the_server_has_its_place() -> None:
    """A new view is about an index, is filtered, or is in a list of reading.py; else it is closed, and named here."""
    paths = {view: re.sub(r"\{\w+\}|\*\w+", "x", view.partition(" ")[2]) for view in documented()}
    closed = {view for view, path in paths.items() if subject(path, ["a/b"], "/a/b") in (None, EVERYTHING)}
    assert closed == {"* /+search", "* /+changelog/{serial}", "* /+changelog/{serial}-"}


def test_a_check_about_a_check_is_refused() -> None:
    assert subject("/+authcheck", original="/+authcheck") is None


# Grants


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def credential(user: str = "alice", password: str = "right") -> Credential:  # noqa: S107 - of a test
    found = Credential.parse(basic(user, password))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer abc",
        "Basic",
        "Basic !!!",
        "basic YTpi",
        "Basic  YTpi",
        basic("../x", "y"),
        basic("a/b", "y"),
        "Basic YQ==",
    ],
)
def test_nginx_gets_no_credential_that_it_may_read_otherwise(header: str) -> None:
    assert Credential.parse(header) is None


def test_tokens_of_one_user_are_told_apart_and_short_passwords_are_in_no_name() -> None:
    tokens = [credential("ci", f"devpi-{hashlib.sha256(bytes([number])).hexdigest()}") for number in (1, 2)]
    assert len({token.name for token in tokens}) == 2
    assert credential("alice", "p" * 30).name == "alice"


def test_a_grant_holds_for_a_while_and_for_this_password(tmp_path: Path) -> None:
    now = [0.0]
    grants = Grants(tmp_path, clock=lambda: now[0])
    grants.end(3)
    grants.give("root/secret", credential(), 3)
    line = (tmp_path / "root/secret/alice").read_text()
    assert line.startswith("alice:{SSHA}")
    assert "right" not in line
    stored = base64.b64decode(line.partition("}")[2])
    assert stored[:20] == hashlib.sha1(b"right" + stored[20:], usedforsecurity=False).digest()  # nginx's form
    assert grants.holds("root/secret", credential(), 3)
    assert not grants.holds("root/secret", credential(password="wrong"), 3)
    assert not grants.holds("root/other", credential(), 3)
    now[0] = SECONDS
    assert not grants.holds("root/secret", credential(), 3)
    grants.expire()
    assert not (tmp_path / "root/secret/alice").exists()


def test_a_change_ends_all_grants_and_those_that_were_judged_before_it(tmp_path: Path) -> None:
    grants = Grants(tmp_path)
    grants.end(3)
    grants.give("root/secret", credential(), 3)
    grants.end(4)
    grants.give("root/secret", credential(), 3)
    assert not grants.holds("root/secret", credential(), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_grant_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.server.guard.grants.SECONDS", 0.2)
    grants = Grants(tmp_path)
    threading.Thread(target=grants.watch, daemon=True).start()
    grants.end(3)
    grants.give("root/secret", credential(), 3)
    deadline = time.monotonic() + 60
    while (tmp_path / "root/secret/alice").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_place_for_nginx_the_server_knows_a_grant(tmp_path: Path) -> None:
    grants = Grants(tmp_path / "none")
    grants.end(3)
    grants.give("root/secret", credential(), 3)
    assert grants.holds("root/secret", credential(), 3)
    assert not (tmp_path / "none").exists()


def test_what_a_killed_server_has_left_in_memory_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "memory"
    monkeypatch.setattr(memory, "_PLACES", (str(place),))
    monkeypatch.setattr(memory, "_mounted", lambda: {str(place)})
    killed, alive = (place / f"deployer-granted-{process}-x" for process in (2**22 + 1, 1))
    for directory in (killed, alive, tmp_path / "run", tmp_path / "other"):
        directory.mkdir(parents=True)
    memory.make(tmp_path / "run")
    made = (tmp_path / "run" / memory.GRANTED).resolve()
    assert set(place.iterdir()) == {alive, made}
    assert made.stat().st_mode & 0o777 == 0o700
    memory.remove(tmp_path / "run")
    assert set(place.iterdir()) == {alive}
    memory.make(tmp_path / "other")  # and another server has its own


# What nginx finds


def test_files_of_an_index_move_with_its_readers(tmp_path: Path) -> None:
    sendable = Sendable(tmp_path / "run", files=tmp_path / "+files", companions=tmp_path / "companions")
    public, closed = (tmp_path / "run" / place for place in ("files/root/dev", "read/files/root/dev"))
    sendable.configure(["root/dev"], {})
    assert (public.is_symlink(), closed.is_symlink()) == (True, False)
    sendable.configure(["root/dev"], {}, frozenset({"root/dev"}))
    assert (public.is_symlink(), closed.is_symlink()) == (False, True)
    rules = Rules(min_age=1)
    sendable.configure(["root/dev"], {"root/dev": rules}, frozenset({"root/dev"}))
    sendable.let_in("root/dev", rules, "+f/123/demo.whl", ())
    assert not public.exists()
    assert (closed / "+f/123/demo.whl").is_symlink()
    sendable.configure(["root/dev"], {"root/dev": rules})
    assert not closed.exists()
    assert list(public.iterdir()) == []


def test_a_server_that_begins_anew_keeps_no_link_that_is_too_open(tmp_path: Path) -> None:
    for protected in (frozenset[str](), frozenset({"root/dev"}), frozenset[str]()):
        sendable = Sendable(tmp_path / "run", files=tmp_path / "+files", companions=tmp_path / "companions")
        sendable.configure(["root/dev"], {}, protected)
        assert (tmp_path / "run/files/root/dev").is_symlink() is not bool(protected)
        assert (tmp_path / "run/read/files/root/dev").is_symlink() is bool(protected)


def test_links_of_a_canonical_view_move_with_its_readers(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    links = CanonicalLinks(tmp_path / "run/canonical")
    (tmp_path / "run").mkdir()
    links.add("root/pypi", "/packages/demo.whl", "demo", to=tmp_path / "file", mark=links.mark)
    mark = links.mark
    links.obey(frozenset({"root/pypi"}))
    links.add("root/pypi", "/packages/demo.whl", "demo", to=tmp_path / "file", mark=mark)
    assert list((tmp_path / "run").iterdir()) == []
    links.add("root/pypi", "/packages/demo.whl", "demo", to=tmp_path / "file", mark=links.mark)
    assert (tmp_path / "run/read/canonical/root/pypi/packages/demo.whl").resolve() == tmp_path / "file"
