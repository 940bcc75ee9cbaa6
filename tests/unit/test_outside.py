"""The address of a proxy in front: paths with and without its prefix, and who its clients are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.diagnosis.outside import Answer, Through, checks
from deployer.server.outside import Outside

SEGMENTS = st.lists(st.sampled_from(["a", "ab", "pypi", "pypi-x", "+simple", ""]), max_size=4)


@pytest.mark.parametrize("url", ["https://h.example/pypi", "https://h.example/pypi/", "https://h.example/pypi//"])
def test_a_prefix_is_whole_segments(url: str) -> None:
    outside = Outside.of(url)
    assert outside.prefix == "/pypi"
    for path, own in (
        ("/pypi", "/"),
        ("/pypi/", "/"),
        ("/pypi/root/dev", "/root/dev"),
        ("/pypi-team/dev", "/pypi-team/dev"),
        ("/root/pypi", "/root/pypi"),
        ("/", "/"),
    ):
        assert outside.own(path) == own


@given(SEGMENTS, st.sampled_from(["", "/a", "/pypi", "/a/pypi"]))
def test_devpi_finds_the_path_that_is_meant(segments: list[str], prefix: str) -> None:
    """devpi takes the letters of the prefix from the beginning of each path."""
    outside = Outside.of(f"https://h.example{prefix}")
    path = "/" + "/".join(segments)
    environ = {"PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1", "HTTP_X_OUTSIDE_URL": "https://evil.example/x"}
    outside.settle(environ, peer=True)
    assert "HTTP_X_OUTSIDE_URL" not in environ
    assert (environ["PATH_INFO"].removeprefix(prefix) or "/") == outside.own(path)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "203.0.113.9", "203.0.113.9"),
        ("192.0.2.1", "10.9.9.9, 203.0.113.9", "203.0.113.9"),
        ("192.0.2.1", "203.0.113.9, 192.0.2.77", "203.0.113.9"),
        ("192.0.2.1", "192.0.2.5,192.0.2.77", "192.0.2.5"),
        ("192.0.2.1", "2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "unknown", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9, evil", "192.0.2.1"),
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("", "203.0.113.9", ""),
    ],
)
def test_only_a_trusted_proxy_names_its_client(peer: str, forwarded: str, client: str) -> None:
    assert Outside.of("", ["192.0.2.0/24"]).client(peer, forwarded) == client
    assert Outside.of("").client(peer, forwarded) == peer


URL, LOCAL = "https://h.example/pypi", "http://127.0.0.1:3141"
RIGHT: dict[str, Any] = {
    "identity": Answer(status=200),
    "ours": True,
    "proof": "right",
    "addresses": {"login": f"{URL}/+login"},
    "received": ("Authorization", "X-Devpi-Auth", "X-Forwarded-For"),
    "client": "192.0.2.1",
}


@pytest.mark.parametrize(
    ("changed", "level", "cure"),
    [
        ({}, "ok", ""),
        ({"file": (f"{URL}/root/pypi/+f/x", Answer(status=200))}, "ok", ""),
        ({"file": ("https://evil.example/x", Answer())}, "failure", "have it pass pages as they are"),
        ({"proof": "wrong"}, "failure", "switch its cache off"),
        ({"identity": Answer(error="connection refused")}, "warning", "network.ca_file"),
        ({"identity": Answer(status=503)}, "failure", f"have the proxy pass /pypi to {LOCAL}/"),
        ({"identity": Answer(status=302, location="/sign-in")}, "failure", f"have the proxy pass /pypi to {LOCAL}/"),
        (
            {"identity": Answer(status=308, location="https://h.example/index/+deployer")},
            "failure",
            "set network.outside_url to https://h.example/index",
        ),
        ({"addresses": {"login": "http://h.example/+login"}}, "failure", "deployer up"),
        ({"received": ("Authorization", "X-Forwarded-For")}, "failure", "have it pass X-Devpi-Auth"),
        ({"received": ("Authorization", "X-Devpi-Auth")}, "warning", "have it send X-Forwarded-For"),
    ],
)
def test_an_error_of_a_proxy_has_one_cure(changed: dict[str, Any], level: str, cure: str) -> None:
    first = next(checks(URL, LOCAL, Through(**{**RIGHT, **changed}), trusted=True))
    assert (first.level, cure in first.cure) == (level, True), first


def test_a_proxy_that_names_its_clients_is_to_be_trusted() -> None:
    found = list(checks(URL, LOCAL, Through(**RIGHT), trusted=False))
    assert [one.level for one in found] == ["warning", "ok"]
    assert found[0].cure == "deployer up --set 'network.trusted_proxies=[\"192.0.2.1\"]'"
