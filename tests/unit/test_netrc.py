"""``~/.netrc`` as a client file: one line for a host, everything else byte for byte, and back."""

from __future__ import annotations

import netrc as standard
import stat
from pathlib import Path

import pytest

from deployer.clients.client import Account, ClientSettings
from deployer.clients.configure import configure, undo
from deployer.clients.netrc import Login, Netrc, host_of, known
from deployer.errors import ClientFileError
from deployer.secrets import Secret

URL = "https://packages.example.com:8443/root/dev/+simple/"
OTHER = "http://127.0.0.1:3141/root/dev/+simple/"
TOKEN = "devpi-abc_d-1="
FOREIGN = """\
# mine
machine git.example.com
  login ann
  password two
machine one.example.com login ann password three
macdef init
cd /

default login x password y
"""


@pytest.fixture
def account(tmp_path: Path) -> Account:
    home = tmp_path / "home"
    home.mkdir()
    return Account(env={}, home=home, state=tmp_path / "state", directory=tmp_path)


def log_in(account: Account, url: str = URL, *, user: str = "ci", password: str = TOKEN) -> Path:
    done = configure(Netrc(Login(user, Secret(password))), ClientSettings(index_url=url, timeout=1), account=account)
    return done.path


def entry(path: Path, host: str) -> tuple[str, str]:
    """User and password as Python's own module reads them."""
    found = standard.netrc(str(path)).authenticators(host)
    assert found is not None
    return found[0], found[2]


@pytest.mark.parametrize("before", [None, b"", FOREIGN.encode(), FOREIGN.encode().replace(b"\n", b"\r\n"), b"no end"])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_it_is_written_and_taken_back_exactly(account: Account, before: bytes | None, mode: int) -> None:
    path = account.home / ".netrc"
    if before is not None:
        path.write_bytes(before)
        path.chmod(mode)
    assert log_in(account) == path
    assert path.read_bytes().endswith(before or b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if before != b"no end":
        assert entry(path, "packages.example.com") == ("ci", TOKEN)
    undo(Netrc(), account=account)
    assert (path.read_bytes() if path.exists() else None) == before
    if before is not None:
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_token_replaces_the_former_one_and_other_hosts_stay(account: Account) -> None:
    path = log_in(account)
    log_in(account, OTHER, user="root", password="devpi-second")
    log_in(account, password="devpi-third")
    assert path.read_text().count("machine") == 2
    assert entry(path, "packages.example.com") == ("ci", "devpi-third")
    assert entry(path, "127.0.0.1") == ("root", "devpi-second")
    assert known(account, URL) == Login("ci", Secret("devpi-third"))
    assert known(account, "https://elsewhere.example.com/root/dev/+simple/") is None
    undo(Netrc(), account=account)
    assert not path.exists()


def test_what_others_change_meanwhile_is_kept(account: Account) -> None:
    path = account.home / ".netrc"
    path.write_text(FOREIGN)
    log_in(account)
    path.write_text(path.read_text() + "machine new.example.com login a password b\n")
    done = undo(Netrc(), account=account)
    assert path.read_text() == FOREIGN + "machine new.example.com login a password b\n"
    assert "its changes are kept" in done.warnings[0]


def test_a_line_of_ours_with_another_password_is_kept(account: Account) -> None:
    path = log_in(account)
    path.write_text(path.read_text().replace(TOKEN, "another"))
    done = undo(Netrc(), account=account)
    assert "another" in path.read_text()
    assert "machine packages.example.com" in done.warnings[1]


@pytest.mark.parametrize(
    "foreign",
    [
        "machine packages.example.com login ann password own\n",
        "machine\n  packages.example.com\n  login ann\n  password own",
        "default login x password y\nmachine packages.example.com login ann password own\n",
    ],
)
def test_an_entry_of_somebody_else_is_not_replaced(account: Account, foreign: str) -> None:
    path = account.home / ".netrc"
    path.write_text(foreign)
    with pytest.raises(ClientFileError, match=r"entry for packages\.example\.com already"):
        log_in(account)
    assert path.read_text() == foreign
    assert log_in(account, OTHER) == path  # another host is


@pytest.mark.parametrize("password", ["two words", "a\nmachine b login c password d", 'quo"te', "back\\slash", "#x"])
def test_a_password_that_programs_would_read_differently_is_refused(account: Account, password: str) -> None:
    with pytest.raises(ClientFileError) as caught:
        log_in(account, password=password)
    assert password not in f"{caught.value.message}{caught.value.hint}"
    assert not (account.home / ".netrc").exists()


def test_the_variable_names_another_file(account: Account, tmp_path: Path) -> None:
    chosen = tmp_path / "elsewhere"
    other = Account(env={"NETRC": str(chosen)}, home=account.home, state=account.state, directory=tmp_path)
    assert log_in(other) == chosen
    undo(Netrc(), account=other)
    assert not chosen.exists()


def test_the_record_of_a_write_has_no_password(account: Account) -> None:
    log_in(account)
    assert all(TOKEN.encode() not in file.read_bytes() for file in account.state.rglob("*") if file.is_file())


def test_a_host_is_looked_up_without_its_port() -> None:
    assert [host_of(url) for url in (URL, OTHER)] == ["packages.example.com", "127.0.0.1"]
