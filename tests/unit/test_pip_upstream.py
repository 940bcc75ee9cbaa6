"""What pip would install from if deployer were left out of it."""

from __future__ import annotations

from deployer.clients import pip
from deployer.clients.client import ClientSettings
from deployer.clients.variables import variables
from tests.pip_host import CORP, SETTINGS, URL, Host


def is_ours(url: str) -> bool:
    return url.startswith("http://127.0.0.1:3141/")


def upstream(host: Host) -> tuple[str, str] | None:
    found = pip.upstream(host.read(), ours=is_ours)
    return (found.value, found.source) if found else None


def test_pips_own_default_is_none(host: Host) -> None:
    assert upstream(host) is None
    host.configure()
    assert upstream(host) is None


def test_the_upstream_is_what_pip_was_told(host: Host) -> None:
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    assert upstream(host) == (CORP, str(path))


def test_the_upstream_is_found_behind_ourselves(host: Host) -> None:
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    host.configure()
    assert host.read().value("index-url") == URL
    assert upstream(host) == (CORP, f"{path} before deployer")


def test_a_weaker_source_is_found_behind_ourselves(host: Host) -> None:
    path = host.write("global", f"[global]\nindex-url = {CORP}\n")
    host.configure()
    assert upstream(host) == (CORP, str(path))


def test_an_address_that_we_wrote_is_never_an_upstream(host: Host) -> None:
    """Not on loopback, so that nobody can see from the address whose it is."""
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    far = ClientSettings(index_url="http://devpi.example.com:3141/root/dev/+simple/", timeout=60)
    host.configure(far)
    assert upstream(host) == (CORP, f"{path} before deployer")


def test_ourselves_in_the_environment(host: Host) -> None:
    """As inside ``deployer exec``."""
    path = host.write("user", f"[global]\nindex-url = {CORP}\n")
    host.env |= variables(SETTINGS)
    assert upstream(host) == (CORP, str(path))


def test_a_folder_of_files_is_no_upstream(host: Host) -> None:
    path = host.write("global", f"[global]\nindex-url = {CORP}\n")
    host.write("user", "[global]\nindex-url = file:///opt/wheels\n")
    assert upstream(host) == (CORP, str(path))


def test_what_an_image_build_needs(host: Host) -> None:
    host.write(
        "user", f"[global]\nindex-url = {CORP}\ncert = /c.pem\nproxy = http://p.example.com:8080\ntimeout = 7.5\n"
    )
    host.configure()
    host.env["PIP_TIMEOUT"] = "7.5"
    found = pip.build_settings(host.read(), ours=is_ours)
    assert found == {"index_url": CORP, "cert": "/c.pem", "proxy": "http://p.example.com:8080", "timeout": 8}
