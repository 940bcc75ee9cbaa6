"""The API client against programs that only pretend to be devpi, and against a devpi that lies."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.devpi.api import DevpiApi
from deployer.devpi.connection import MAX_BODY, NotDevpiError
from deployer.devpi.identity import Identity, verify
from deployer.errors import ConflictError, DeployerError, NotReadyError, ProfileError, ServerRefused
from deployer.secrets import Secret
from tests.hostile import Answer, HostileServer, always, by_path, devpi_reply, drip, reply

PASSWORD = "canary-password-7f3a"
UUID = "00112233445566778899aabbccddeeff"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HTML = reply(b"<!DOCTYPE html><h1>It works</h1>", kind="text/html")


def endless(request: bytes) -> Iterator[bytes]:
    """A body of ten gigabytes."""
    yield HEAD + b"Content-Length: 10000000000\r\n\r\n"
    for _ in range(10_000):
        yield b" " * 1_000_000


def bomb(request: bytes) -> Iterator[bytes]:
    body = gzip.compress(b"[" * 50_000_000)
    yield reply(body, extra="Content-Encoding: gzip\r\n")


CALLS: dict[str, Callable[[DevpiApi], object]] = {
    "identity": lambda api: api.identity("ab"),
    "topology": lambda api: api.topology(),
    "index": lambda api: api.simple_status("root/dev"),
    "login": lambda api: api.login("root", Secret(PASSWORD)),
    "write": lambda api: api.put_index("root/dev", {"type": "stage"}),
}
NOT_DEVPI: dict[str, Answer] = {
    "html": always(HTML),
    "huge": endless,
    "bomb": bomb,
    "redirect to a file": always(reply(b"", status="302 Found", extra="Location: file:///etc/passwd\r\n")),
    "redirect to a host": always(reply(b"", status="307 Go", extra="Location: http://evil.example.com/\r\n")),
    "list": always(reply(b"[1, 2]")),
    "half": always(reply(b'{"type": "list:userconfig", "resu')),
    "deep": always(reply(b"[" * 200_000)),
    "text": always(reply(b"\xff\xfe not UTF-8 \x1b[2J")),
}


@pytest.mark.parametrize("answer", NOT_DEVPI.values(), ids=NOT_DEVPI)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_not_devpi_is_told(answer: Answer, call: Callable[[DevpiApi], object]) -> None:
    with HostileServer(answer) as server, DevpiApi(server.url) as api:
        with pytest.raises(NotDevpiError, match="is not a devpi") as caught:
            call(api)
        assert caught.value.exit_code == 6
        assert caught.value.message.isprintable()
        assert server.sent < 20 * MAX_BODY


@pytest.mark.parametrize(
    "users",
    [
        {"root": "A" * 1_000_000},
        {"root": {"indexes": {"dev": "https://u:pw@packages.example.com/"}}},
        {"\x1b]0;gotcha\x07": {}},
        {"root": {"indexes": {"dev\n": {"type": "stage"}}}},
    ],
    ids=["long", "secret", "user", "index"],
)
def test_a_shape_that_is_not_devpis_is_told_in_a_line(users: object) -> None:
    answer = devpi_reply("list:userconfig", users)
    with (
        HostileServer(always(answer)) as server,
        DevpiApi(server.url) as api,
        pytest.raises(NotDevpiError, match=r"expected an? .*, got") as caught,
    ):
        api.topology()
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()
    assert "pw" not in caught.value.message


@pytest.mark.parametrize("call", [CALLS[name] for name in ("identity", "topology", "index", "login")])
def test_json_of_another_kind_is_not_devpi(call: Callable[[DevpiApi], object]) -> None:
    with (
        HostileServer(always(reply(b'{"status": "ok", "result": {}}'))) as server,
        DevpiApi(server.url) as api,
        pytest.raises(NotDevpiError),
    ):
        call(api)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD + b"Content-Length: 900000\r\n\r\n"])
def test_slow_drip_ends_at_the_deadline(start: bytes) -> None:
    with (
        HostileServer(drip(start)) as server,
        DevpiApi(server.url, timeout=0.5) as api,
        pytest.raises(NotReadyError, match=r"did not answer GET / within 0\.5 s"),
    ):
        api.topology()


def test_silence_ends_at_the_deadline() -> None:
    def silent(request: bytes) -> Iterator[bytes]:
        time.sleep(5)
        yield b""

    with (
        HostileServer(silent) as server,
        DevpiApi(server.url, timeout=0.2) as api,
        pytest.raises(NotReadyError, match="within"),
    ):
        api.identity()


def test_nothing_there() -> None:
    with HostileServer(always(HTML)) as server:
        url = server.url
    with DevpiApi(url) as api, pytest.raises(NotReadyError, match="cannot talk to") as caught:
        api.identity()
    assert caught.value.retryable


def test_connection_closed_at_once() -> None:
    with (
        HostileServer(always()) as server,
        DevpiApi(server.url) as api,
        pytest.raises(NotReadyError, match="cannot talk to"),
    ):
        api.topology()


@pytest.mark.parametrize("status", ["400 Bad", "403 Forbidden", "409 Conflict", "500 Oops", "503 Busy"])
def test_refusal_is_told_in_the_servers_words(status: str) -> None:
    message = json.dumps({"message": "no \x1b[31mcolours\n https://u:pw@packages.example.com/"}).encode()
    with (
        HostileServer(always(reply(message, status=status))) as server,
        DevpiApi(server.url) as api,
        pytest.raises((ServerRefused, ConflictError), match=f"HTTP {status[:3]}") as caught,
    ):
        api.topology()
    assert isinstance(caught.value, ConflictError) == status.startswith("409")
    assert "https://****@packages.example.com/" in caught.value.message
    assert caught.value.message.isprintable()


def test_refusal_without_words() -> None:
    with (
        HostileServer(always(reply(b"<h1>", status="502 Bad Gateway", kind="text/html"))) as server,
        DevpiApi(server.url) as api,
        pytest.raises(ServerRefused, match=r"indexes: Bad Gateway \(HTTP 502\)"),
    ):
        api.topology()


def test_login_with_200_and_no_token_is_no_login() -> None:
    with (
        HostileServer(always(devpi_reply("proxyauth", {"expiration": 36000}))) as server,
        DevpiApi(server.url) as api,
        pytest.raises(NotDevpiError, match="a login without a token"),
    ):
        api.login("root", Secret(PASSWORD))


def test_new_login_is_not_given_to_a_server_that_took_over() -> None:
    tokens = {
        "GET /+status": devpi_reply("status", {"uuid": UUID, "versioninfo": {"devpi-server": "6.20.3"}}),
        "POST /+login": devpi_reply("proxyauth", {"password": "a token", "expiration": 36000}),
        "PUT /root/dev": reply(b"{}"),
    }
    with HostileServer(by_path(tokens)) as server, DevpiApi(server.url) as api:
        api.identity()
        api.login("root", Secret(PASSWORD))
        server.received.clear()
        server.answer = by_path(
            tokens
            | {
                "GET /+status": devpi_reply("status", {"uuid": "f" * 32}),
                "GET /+api": devpi_reply("apiconfig", {"authstatus": ["noauth", "", []]}),
                "PUT /root/dev": reply(b"{}", status="403 Forbidden"),
            }
        )
        with pytest.raises(ConflictError, match="another devpi answers"):
            api.put_index("root/dev", {"type": "stage"})
        assert PASSWORD.encode() not in server.everything


def test_a_token_goes_with_a_read_only_where_the_server_wants_one() -> None:
    answers = {
        "POST /+login": devpi_reply("proxyauth", {"password": "a token", "expiration": 36000}),
        "GET /": devpi_reply("list:userconfig", {}),
        "GET /root/open?no_projects=": devpi_reply("indexconfig", {"type": "stage"}),
        "GET /root/closed?no_projects=": reply(b"{}", status="401 Unauthorized"),
    }
    with HostileServer(by_path(answers)) as server, DevpiApi(server.url) as api:
        api.login("root", Secret(PASSWORD))
        server.received.clear()
        api.simple_status("root/open")
        assert b"x-devpi-auth" not in server.everything.lower()
        with pytest.raises(ServerRefused):
            api.simple_status("root/closed")
        assert server.everything.lower().count(b"x-devpi-auth") == 1
        # Without it the list would lack what not everybody may read, and nobody would know.
        api.topology()
        assert server.everything.lower().count(b"x-devpi-auth") == 2
    with HostileServer(by_path(answers)) as server, DevpiApi(server.url) as api:
        api.topology()
        with pytest.raises(ServerRefused):
            api.simple_status("root/closed")
        assert b"x-devpi-auth" not in server.everything.lower()


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"GET /": devpi_reply("list:userconfig", {})}
    with HostileServer(always(HTML)) as proxy, HostileServer(by_path(answers)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        with DevpiApi(server.url) as api:
            api.topology()
        assert proxy.received == []
        assert server.received[0].startswith(b"GET / HTTP/1.1\r\n")


def test_ipv6_loopback() -> None:
    with (
        HostileServer(by_path({"GET /": devpi_reply("list:userconfig", {})}), host="::1") as server,
        DevpiApi(server.url) as api,
    ):
        assert api.topology().users == {}


def test_uuid_is_checked_before_anybody_prints_it() -> None:
    answer = reply(json.dumps({"uuid": "\x1b]0;gotcha\x07", "version": "1"}).encode())
    with (
        HostileServer(always(answer)) as server,
        DevpiApi(server.url) as api,
        pytest.raises(NotDevpiError, match="does not tell its uuid"),
    ):
        api.identity()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../root", "root/dev", "-x", "a b", "a%2fb", "a\n", "+login", "é", "a?b"]
)
def test_user_names_that_do_not_go_into_a_path(name: str) -> None:
    with HostileServer(always(HTML)) as server, DevpiApi(server.url) as api:
        with pytest.raises(ProfileError):
            api.patch_user(name, {})
        with pytest.raises(ProfileError):
            api.login(name, Secret(PASSWORD))
        assert server.received == []


@pytest.mark.parametrize(
    "name", ["", "root", "root/", "/dev", "root/..", "../dev", "root/dev/x", "root/+simple", "a/b\n", "a/b?"]
)
def test_index_names_that_do_not_go_into_a_path(name: str) -> None:
    with HostileServer(always(HTML)) as server, DevpiApi(server.url) as api:
        for call in (api.simple_status, api.delete_index):
            with pytest.raises(ProfileError):
                call(name)
        assert server.received == []


def _proof(key: str, nonce: str, uuid: str = UUID) -> str:
    return hmac.new(bytes.fromhex(key), f"{nonce}:{uuid}".encode(), hashlib.sha256).hexdigest()


def test_proof() -> None:
    key, nonce = "5a" * 32, "ab" * 16
    good = Identity(uuid=UUID, proof=_proof(key, nonce))
    assert verify(good, nonce=nonce, proof_key=key)
    assert not verify(good, nonce="cd" * 16, proof_key=key)
    assert not verify(good, nonce=nonce, proof_key="5b" * 32)
    assert not verify(Identity(uuid="f" * 32, proof=good.proof), nonce=nonce, proof_key=key)
    assert not verify(Identity(uuid=UUID), nonce=nonce, proof_key=key)
    assert not verify(Identity(uuid=UUID, proof="é"), nonce=nonce, proof_key=key)
    assert not verify(good, nonce=nonce, proof_key="not hex")
    assert not verify(Identity(uuid=UUID, proof=_proof("", nonce)), nonce=nonce, proof_key="")


def test_identity_of_a_server_with_our_plugin() -> None:
    key, nonce = "5a" * 32, "ab" * 16
    told = {
        "uuid": UUID,
        "version": "0.1",
        "server_version": "6.20.3",
        "default_mirror_url": "https://packages.example.com/simple/",
        "web": False,
        "offline": True,
        "proof": _proof(key, nonce),
    }
    with HostileServer(always(reply(json.dumps(told).encode()))) as server, DevpiApi(server.url) as api:
        identity = api.identity(nonce)
        assert b"x-deployer-nonce: " + nonce.encode() in server.received[0].lower()
        assert len(server.received) == 1
    assert verify(identity, nonce=nonce, proof_key=key)
    assert (identity.server_version, identity.deployer_version) == ("6.20.3", "0.1")
    assert (identity.web, identity.offline) == (False, True)


ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "result", "uuid", "message", "password", "indexes"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)


@given(
    st.sampled_from([200, 201, 302, 400, 403, 404, 500]),
    ANSWERS.map(json.dumps).map(str.encode) | st.binary(max_size=20),
)
def test_any_answer_ends_in_a_value_or_an_error_of_ours(status: int, body: bytes) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, stream=httpx.ByteStream(body)))
    with DevpiApi("http://127.0.0.1:1", transport=transport) as api:
        for call in CALLS.values():
            try:
                call(api)
            except DeployerError as error:
                assert error.exit_code in (6, 7)
                assert error.message.isprintable()
