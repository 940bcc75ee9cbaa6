"""Addresses that people write, and configurations hold, some of which are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.addresses import is_loopback, split
from deployer.engines.answers import container_from
from deployer.engines.dialects import DOCKER
from deployer.errors import ProfileError
from deployer.operations.prepare import is_ours
from deployer.profile.load import load
from deployer.profile.load.overrides import Override
from tests.pip_host import CORP, Host

NONE = [
    "http://[oops",
    "http://[::1",
    "http://h:99999/",
    "http://h:x/",
    "http://h:0/",
    "http://",
    "http:///x",
    "ftp://h/",
    "h",
]


@pytest.mark.parametrize("url", NONE)
def test_what_is_none_is_told_in_a_profile(url: str) -> None:
    assert split(url) is None
    for key in ("indexes.root/pypi.url", "network.outside_url"):
        with pytest.raises(ProfileError, match="expected an address") as caught:
            load(overrides=[Override(key, url, "--upstream")])
        assert caught.value.message.startswith(f"--upstream: {key}: ")


@pytest.mark.parametrize("origin", ["http://h:99999", "https://[:::1]"])
def test_what_no_origin_can_be_is_told(origin: str) -> None:
    with pytest.raises(ProfileError, match="expected an address"):
        load(overrides=[Override("server.push_to", [origin], "--set")])


@pytest.mark.parametrize("url", ["http://h", "https://[::1]:3141/x/", "http://u:p@h.example.com:65535/"])
def test_what_is_one(url: str) -> None:
    assert split(url) is not None
    load(overrides=[Override("indexes.root/pypi.url", url, "--set")])


@pytest.mark.parametrize(
    "url", ["http://u:p@h.example.com", "https://h/x?y", "https://h/x#y", "https://h//x", "https://h/a b"]
)
def test_what_no_proxy_can_give_to_clients(url: str) -> None:
    with pytest.raises(ProfileError, match=r"network\.outside_url: expected"):
        load(overrides=[Override("network.outside_url", url, "--set")])


def test_an_outside_url_ends_without_a_slash() -> None:
    found = load(overrides=[Override("network.outside_url", "https://h.example/pypi/", "--set")])
    assert found.profile.network.outside_url == "https://h.example/pypi"


@pytest.mark.parametrize("path", ["root", "root/pypi", "dev"])
def test_a_path_of_a_proxy_is_no_user_and_no_index(path: str) -> None:
    with pytest.raises(ProfileError, match=f"its path /{path} is also the address of"):
        load(
            overrides=[
                Override("network.outside_url", f"https://h.example/{path}/", "--set"),
                Override("users.dev.email", "dev@example.com", "--set"),
            ]
        )


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.example", "", "10.0.0.0/33"])
def test_a_trusted_proxy_is_an_address_or_a_network(network: str) -> None:
    with pytest.raises(ProfileError, match="expected an IP address or a network"):
        load(overrides=[Override("network.trusted_proxies", [network], "--set")])


@pytest.mark.parametrize("url", NONE)
def test_a_host_whose_pip_was_told_such_a_thing_still_has_an_upstream(host: Host, url: str) -> None:
    host.write("global", f"[global]\nindex-url = {CORP}\nproxy = {url}\nfind-links = {url}\n")
    host.write("user", f"[global]\nindex-url = {url}\n")
    from deployer.clients import pip

    found = pip.upstream(host.read(), ours=is_ours)
    assert found is not None and found.value == CORP


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:3141/root/dev/+simple/", True),
        ("https://[::1]/root/dev/+simple/", True),
        ("socks5://127.9.9.9:1080", True),
        ("http://LOCALHOST/", True),
        ("http://127.example.com/", False),
        ("http://packages.example.com/", False),
        ("http://[oops", False),
        ("", False),
    ],
)
def test_what_is_of_this_host(url: str, here: bool) -> None:
    assert is_loopback(url) is here
    assert is_ours(url) == (here and "/+simple" in url)


@given(st.text(max_size=30) | st.text(max_size=20).map("http://".__add__))
def test_any_text_is_an_address_or_none(url: str) -> None:
    split(url)
    is_loopback(url)


def test_ports_of_a_container_that_somebody_else_made() -> None:
    bound = {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}], "53/udp": None, "81/tcp": [{"HostPort": ""}]}
    raw = {"Id": "1", "Name": "/devpi", "State": {"Status": "running"}, "HostConfig": {"PortBindings": bound}}
    found = container_from(raw, DOCKER)
    assert [(port.host_port, port.container_port) for port in found.ports] == [(8000, 80), (0, 81)]
