"""What the command line and the server agree on: each side reads what the other writes, and nothing else."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from deployer import protocol
from deployer.errors import ConflictError, NotReadyError, Refused, VerificationError, of_refusal
from deployer.protocol import (
    FINAL,
    About,
    Deleted,
    ExitCode,
    OfflineRequest,
    Outcome,
    PrivateFile,
    RefreshRequest,
    Refusal,
    client_proof,
    outcomes,
    same_proof,
)

KEY, UUID = "5a" * 32, "ab" * 16


def test_it_imports_only_the_standard_library() -> None:
    """The image has nothing else of deployer but the server."""
    found: set[str] = set()
    for path in sorted(Path(protocol.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found |= {name.name for name in node.names} if isinstance(node, ast.Import) else set()
            found |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
    others = {name for name in found if not f"{name}.".startswith("deployer.protocol.")}
    assert "json" in others and {name.partition(".")[0] for name in others} <= sys.stdlib_module_names


@pytest.mark.parametrize("code", [*FINAL, ExitCode.INTERNAL])
def test_a_refusal_comes_back_from_its_lines(code: ExitCode) -> None:
    refusal = Refusal("port 1 of ::1: is taken", hint="free the port", code=code)
    log = ["Serving on …", *refusal.text.splitlines(), f"{protocol.SUPERVISOR}exit code 5, not restarted"]
    found = Refusal.parse(log)
    assert found is not None
    assert (found.message, found.hint, found.code) == (refusal.message, refusal.hint, code)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("deployer: exit code 5: taken",),
        ("deployer: taken", "deployer: free it"),
        ("deployer: exit code 5: taken", "deployer: free it", "Traceback"),
        ("deployer: exit code five: taken", "deployer: free it"),
    ],
)
def test_other_lines_are_no_refusal(lines: tuple[str, ...]) -> None:
    assert Refusal.parse(lines) is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [(5, ConflictError), (9, VerificationError), (11, Refused), (1, NotReadyError), (3, NotReadyError)],
)
def test_a_final_exit_code_is_kept(code: int, kind: type[Exception]) -> None:
    error = of_refusal(Refusal("no", hint="yes", code=code), prefix="devpi: ")
    assert (type(error), error.message, error.hint) == (kind, "devpi: no", "yes")


def test_what_a_server_says_of_itself_comes_back() -> None:
    about = About(uuid=UUID, version="1", server_version="6", web=True, offline=False, challenge="c", free_bytes=1)
    assert About.parse(about.json) == about
    assert "proof" not in about.json
    assert About.parse(About(proof="p").json).proof == "p"


def test_values_of_unexpected_types_are_defaults() -> None:
    for junk in (None, 1, [], {}, "text", True):
        about = About.parse(dict.fromkeys(About.__dataclass_fields__, junk))
        assert isinstance(about.uuid, str) and isinstance(about.writable, bool)
        assert about.web in (None, True) and about.free_bytes in (None, 1)


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"offline": 1, "proof": "x"}, {"offline": True}, {"offline": True, "proof": "é"}, {"proof": "x"}],
)
def test_invalid_requests_are_none(body: object) -> None:
    assert OfflineRequest.parse(body) is None


def test_a_request_comes_back() -> None:
    wanted = OfflineRequest(offline=True, proof="abc")
    assert OfflineRequest.parse(wanted.json) == wanted


def test_a_proof_is_for_one_challenge_server_and_wish() -> None:
    proof = client_proof(KEY, challenge="c", uuid=UUID, order="offline on")
    others = [
        client_proof(KEY, challenge="d", uuid=UUID, order="offline on"),
        client_proof(KEY, challenge="c", uuid="cd" * 16, order="offline on"),
        client_proof(KEY, challenge="c", uuid=UUID, order="offline off"),
        client_proof("5b" * 32, challenge="c", uuid=UUID, order="offline on"),
    ]
    assert same_proof(proof, proof)
    assert not any(same_proof(proof, other) for other in (*others, "", "é", "\ud800"))
    for key in ("", "not hex"):
        with pytest.raises(ValueError):
            client_proof(key, challenge="c", uuid=UUID, order="offline on")


def test_no_two_orders_have_the_same_words() -> None:
    orders = [
        OfflineRequest(offline=True),
        OfflineRequest(offline=False),
        RefreshRequest(index="root/pypi"),
        RefreshRequest(index="root/pypi", projects=()),
        RefreshRequest(index="root/pypi", projects=("alpha",)),
        RefreshRequest(index="root/pypi", projects=("alpha", "beta")),
        RefreshRequest(index="root/other", projects=("alpha",)),
    ]
    assert len({wanted.order for wanted in orders}) == len(orders)


@pytest.mark.parametrize("projects", [None, (), ("alpha", "b-2")])
def test_a_refresh_comes_back(projects: tuple[str, ...] | None) -> None:
    wanted = RefreshRequest(index="root/pypi", projects=projects, proof="abc")
    assert RefreshRequest.parse(json.loads(json.dumps(wanted.json))) == wanted


@pytest.mark.parametrize(
    "changed",
    [
        {"index": "pypi"},
        {"index": "root/pypi alpha"},
        {"index": None},
        {"projects": "alpha"},
        {"projects": [1]},
        {"projects": ["Alpha"]},
        {"projects": ["../x"]},
        {"projects": ["a b"]},
        {"projects": ["*"]},
        {"proof": None},
        {"proof": "é"},
    ],
)
def test_an_invalid_refresh_is_none(changed: dict[str, object]) -> None:
    assert RefreshRequest.parse({"index": "root/pypi", "projects": ["alpha"], "proof": "abc"} | changed) is None
    assert RefreshRequest.parse(list(changed)) is None


def test_outcomes_of_a_server_that_is_not_trusted() -> None:
    told = {"alpha": "changed", "beta": "no answer", "gamma": "fine", "delta": 1, "\x1b[2J": "gone"}
    assert outcomes({"projects": told}) == {"alpha": Outcome.CHANGED, "beta": Outcome.NO_ANSWER}
    for junk in (None, 1, [], "text", {}):
        assert outcomes({"projects": junk}) == {}


def test_deleted_projects_come_back() -> None:
    names = [f"root/pypi/p{number:02}" for number in range(12)]
    told = Deleted.of(names[::-1], kept=True)
    assert (told.count, told.projects, told.kept) == (12, tuple(names[:10]), True)
    about = About.parse(json.loads(json.dumps(About(deleted=told).json)))
    assert about.deleted == told


@pytest.mark.parametrize(
    "junk", [None, 1, [], "text", {}, {"count": -1, "projects": ["\x1b[2J", 1], "kept": 1}, {"count": True}]
)
def test_what_is_no_list_of_deleted_projects_is_none(junk: object) -> None:
    assert Deleted.parse(junk) == Deleted()


def test_private_files_are_below_one_directory() -> None:
    assert PrivateFile.ROOT_PASSWORD.relative == ".deployer/root-password"
    assert len({name.value for name in PrivateFile}) == len(PrivateFile)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("10b", 10), ("2k", 2048), ("64m", 64 << 20), ("10m", 10 << 20), ("1G", 1 << 30)],
)
def test_a_size(text: str, expected: int) -> None:
    assert protocol.parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "m", "0", "-1k", "10x", "1.5m"])
def test_an_invalid_size(text: str) -> None:
    with pytest.raises(ValueError):
        protocol.parse_size(text)
