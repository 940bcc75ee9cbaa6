"""Jobs of CI exchange their ID tokens at a real server, with an issuer on loopback."""

from __future__ import annotations

import base64
import netrc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("jwt")

from deployer.plan.container import oidc_rule
from deployer.profile.models import Oidc
from tests import indexed_server
from tests.front import ask
from tests.oidc_issuer import AUDIENCE, OTHER_KEY, Issuer, claims, signed
from tests.server_process import PATIENCE, Server, request
from tests.upstream import make_wheel

pytestmark = pytest.mark.server

ROUTE = "/+deployer/oidc"
TEMPLATE = Path(__file__).parents[2] / "ci" / "gitlab" / "deployer.yml"
INDEXES = ("work", "base", "other")
FAILING = ("huge", "moved", "elsewhere", "other", "broken")
WHEEL = make_wheel("acme-app", "1.0")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Server]:
    it = Server(tmp_path_factory.mktemp("oidc") / "server")
    base = {"audience": AUDIENCE, "user": "ci", "indexes": ["ci/work"], "claims": {"repository": "acme/*"}}
    wanted = [
        {**base, "issuer": issuer.url, "claims": {"repository": "acme/app"}, "permissions": ["upload"]},
        {**base, "issuer": issuer.url},
        *({**base, "issuer": issuer.of(name)} for name in FAILING),
    ]
    words = [word for rule in wanted for word in ("--oidc", oidc_rule(Oidc.model_validate(rule)))]
    try:
        it.start(*words)
        make(it)
        yield it
    finally:
        it.end()


def make(server: Server) -> None:
    auth = server.auth
    for path, body in (
        ("/ci", {"password": "a long enough word"}),
        ("/ci/base", {"type": "stage", "bases": [], "acl_read": ["ci"]}),
        ("/ci/work", {"type": "stage", "bases": ["ci/base"]}),
        ("/ci/other", {"type": "stage", "bases": [], "acl_read": ["ci"]}),
    ):
        status, answer = request(server.port, "PUT", path, body=body, headers=auth)
        assert status in (200, 201), answer


def exchange(server: Server, token: object, route: str = ROUTE) -> tuple[int, Any]:
    return request(server.port, "POST", route, body={"token": token})


def basic(token: str, user: str = "__token__") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}


def upload(server: Server, index: str, token: str, user: str = "__token__") -> int:
    return indexed_server.upload(server, basic(token, user), index, WHEEL)


def test_a_job_uploads_with_what_it_gets(server: Server, issuer: Issuer) -> None:
    jwt = signed(claims(issuer.url))
    status, answer = exchange(server, jwt)
    assert (status, answer["user"], answer["allowed"]) == (200, "ci", ["upload"]), answer
    assert upload(server, "ci/work", answer["token"]) == 200
    assert upload(server, "ci/work", answer["token"], "ci") in (200, 409)
    assert upload(server, "ci/other", answer["token"]) in (401, 403)
    # It does nothing else, and the ID token is of no use any more.
    auth = basic(answer["token"], "ci")
    assert request(server.port, "POST", "/ci/+token-create", body={}, headers=auth)[0] == 403
    assert request(server.port, "PATCH", "/ci", body={"email": "x@example.com"}, headers=auth)[0] == 403
    assert exchange(server, jwt)[0] == 403
    assert (jwt in server.output, answer["token"] in server.output) == (False, False)
    assert "repo:acme/app:ref:refs/heads/main" in server.output


def test_a_token_that_reads_is_valid_for_the_bases_and_uploads_nothing(server: Server, issuer: Issuer) -> None:
    status, answer = exchange(server, signed(claims(issuer.url, repository="acme/other")), "/_/oidc/mint-token")
    assert (status, answer["allowed"], answer["success"]) == (200, ["pkg_read"], True), answer
    auth = basic(answer["token"])
    read = [request(server.port, "GET", f"/ci/{index}/+simple/", headers=auth)[0] for index in INDEXES]
    assert read == [200, 200, 401]
    assert [request(server.port, "GET", f"/ci/{index}/+simple/")[0] for index in INDEXES] == [401, 401, 401]
    uploads = exchange(server, signed(claims(issuer.url)))[1]["token"]
    read = [request(server.port, "GET", f"/ci/{index}/+simple/", headers=basic(uploads))[0] for index in INDEXES]
    assert 200 not in read
    assert upload(server, "ci/work", answer["token"]) == 403
    assert request(server.port, "GET", "/_/oidc/audience") == (200, {"audience": AUDIENCE})


def test_revoking_ends_the_tokens_of_all_jobs(server: Server, issuer: Issuer) -> None:
    first = exchange(server, signed(claims(issuer.url)))[1]["token"]
    listed = request(server.port, "GET", "/ci/+tokens", headers=server.auth)[1]["result"]["tokens"]
    assert list(listed) == ["oidc"]  # one, for any number of jobs
    assert request(server.port, "DELETE", "/ci/+tokens/oidc", headers=server.auth)[0] == 200
    assert upload(server, "ci/work", first) in (401, 403)
    assert upload(server, "ci/work", exchange(server, signed(claims(issuer.url)))[1]["token"]) in (200, 409)


def test_a_refusal_is_one_line_and_in_the_log_without_the_token(server: Server, issuer: Issuer) -> None:
    hostile = [
        (signed(claims(issuer.url), None, "none"), 401, "its algorithm is not allowed"),
        (signed(claims(issuer.url), OTHER_KEY), 401, "ignature"),
        (signed(claims(issuer.url, aud="https://other.example.com")), 401, "udience"),
        (signed(claims(issuer.url, exp=1)), 401, "expired"),
        (signed(claims(issuer.url), kid="new"), 401, "its key is unknown"),
        (signed(claims("https://evil.example.com")), 401, "no rule for its issuer"),
        (signed(claims(issuer.url, repository="evil/app")), 403, "no rule for"),
        ("x" * 9000, 401, "no JWT"),
        (7, 401, "the request has no token"),
        ({"a": ["[" * 100]}, 401, "the request has no token"),
    ]
    for token, status, logged in hostile:
        before = len(server.output)
        found, answer = exchange(server, token)
        assert (found, list(answer)) == (status, ["message"]), (logged, answer)
        assert logged in server.output[before:]
        assert not isinstance(token, str) or token not in server.output
    assert ask(server.port, ROUTE, method="POST", body=b"{").status == 401
    assert exchange(server, "x" * 20_000)[0] in (401, 413)


@pytest.mark.parametrize("name", FAILING)
def test_an_issuer_that_fails_admits_nobody(server: Server, issuer: Issuer, name: str) -> None:
    for _ in range(5):
        status, answer = exchange(server, signed(claims(issuer.of(name))))
        assert (status, "does not answer" in answer["message"]) == (503, True)


# Clients of the exchange


def test_the_command_exchanges_what_the_runner_of_a_job_gives(server: Server, issuer: Issuer, tmp_path: Path) -> None:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HOME": str(tmp_path), "DEPLOYER_STATE_DIR": str(tmp_path / "state"), **more}
        url = f"http://127.0.0.1:{server.port}"
        argv = [sys.executable, "-m", "deployer", "token", "exchange", "--url", url, *words]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)

    done = run("--audience", AUDIENCE, **issuer.job)
    assert (done.returncode, done.stdout.startswith("devpi-")) == (0, True), done.stderr
    assert upload(server, "ci/work", done.stdout.strip()) in (200, 409)
    elsewhere = run("--audience", "https://other.example.com", **issuer.job)
    assert (elsewhere.returncode, "refused the ID token: invalid ID token" in elsewhere.stderr) == (7, True)
    assert run("--id-token", signed(claims(issuer.url))).returncode == 2  # the token itself belongs in no argument


def test_the_template_for_gitlab_logs_a_job_in(server: Server, issuer: Issuer, tmp_path: Path) -> None:
    (script,) = yaml.safe_load(TEMPLATE.read_text())[".deployer-login"]["before_script"]
    (tmp_path / ".netrc").write_text("machine git.example.com login ann password two")
    (tmp_path / ".netrc").chmod(0o600)

    def run(token: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DEPLOYER_CI_PYTHON": sys.executable}
        env |= {"DEPLOYER_CI_SERVER": f"http://127.0.0.1:{server.port}/", "INDEX_ID_TOKEN": token}
        return subprocess.run(
            ["sh", "-e", "-c", script], env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    refused = run(signed(claims(issuer.url, repository="evil/app")))
    assert (refused.returncode, "HTTP 403" in refused.stderr, "Traceback" in refused.stderr) == (1, True, False)
    done = run(signed(claims(issuer.url)))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found = netrc.netrc(str(tmp_path / ".netrc"))
    login = found.authenticators("127.0.0.1")
    assert login is not None
    assert (found.authenticators("git.example.com") or ())[2] == "two"
    assert upload(server, "ci/work", login[2], login[0]) in (200, 409)
