"""Facts of this host: asked of the real kernel and file system, and nothing is changed by asking."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest

from deployer.errors import ConflictError, ProfileError
from deployer.host import gather
from deployer.host.gather import ca_file, data_facts, port_facts, proxies
from deployer.plan.facts import Content

T = TypeVar("T")
LOOPBACK = ip_address("127.0.0.1")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="who holds a port is read from Linux's /proc")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def as_nobody(path: Path, call: Callable[[], T]) -> T:
    """What ``call`` tells another user, who may come as far as ``path``."""
    for folder in (path, *path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    os.setresuid(65534, 65534, 0)
    try:
        return call()
    finally:
        os.setresuid(0, 0, 0)


# Data directories


def test_what_is_not_there_yet_has_the_numbers_of_its_nearest_parent(tmp_path: Path) -> None:
    facts = data_facts(tmp_path / "a" / "b")
    assert (facts.content, facts.parent) == (Content.ABSENT, tmp_path)
    assert facts.parent_writable and not facts.read_only
    assert facts.free_bytes > 0 and facts.free_inodes > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "content"),
    [
        ((), Content.EMPTY),
        (("lost+found", ".DS_Store"), Content.EMPTY),
        ((".nodeinfo", ".serverversion", "+files"), Content.DEVPI),
        ((".sqlite",), Content.DEVPI),
        ((".deployer",), Content.DEVPI),
        ((".serverversion", "thesis.txt"), Content.DEVPI),
        (("thesis.txt",), Content.FOREIGN),
        ((".hidden",), Content.FOREIGN),
        (("nodeinfo",), Content.FOREIGN),
    ],
    ids=str,
)
def test_what_is_in_it(names: tuple[str, ...], content: Content, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert data_facts(tmp_path).content is content


def test_whose_it_is_and_who_may_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o2751)
    facts = data_facts(tmp_path)
    assert (facts.uid, facts.gid, facts.mode) == (os.geteuid(), tmp_path.stat().st_gid, 0o2751)


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    assert data_facts(tmp_path / "file").content is Content.NOT_A_DIRECTORY
    assert data_facts(tmp_path / "pipe").content is Content.NOT_A_DIRECTORY  # nobody waits for what comes


@NOT_ROOT
def test_what_may_not_be_read(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    assert data_facts(closed).content is Content.UNREADABLE
    closed.chmod(0o500)
    assert not data_facts(closed / "data").parent_writable


@AS_ROOT
def test_what_lies_in_a_closed_directory_can_not_be_seen(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)
    facts = as_nobody(tmp_path, lambda: data_facts(closed / "data" / "below"))
    assert (facts.content, facts.parent, facts.parent_writable) == (Content.ABSENT, closed, False)
    bundle = closed / "ca.pem"
    bundle.touch()
    assert as_nobody(tmp_path, lambda: ca_file("auto", pip_cert=str(bundle), env={})) is None


def test_a_link_that_leads_to_itself_is_one(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    facts = data_facts(loop)
    assert (facts.content, facts.symlink_to) == (Content.ABSENT, loop)


def test_a_link_is_told_with_its_end(tmp_path: Path) -> None:
    (tmp_path / "end").mkdir()
    (tmp_path / "middle").symlink_to("end")
    (tmp_path / "link").symlink_to(tmp_path / "middle")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    assert data_facts(tmp_path / "link").symlink_to == (tmp_path / "end").resolve()
    nowhere = data_facts(tmp_path / "nowhere")
    assert (nowhere.content, nowhere.symlink_to) == (Content.ABSENT, (tmp_path / "missing").resolve())
    assert data_facts(tmp_path / "end").symlink_to is None


def test_a_file_system_without_a_fixed_number_of_inodes_has_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    fields = list(real)
    fields[5:8] = [0, 0, 0]  # f_files, f_ffree, f_favail
    monkeypatch.setattr(gather.os, "statvfs", lambda _: os.statvfs_result(fields))
    assert data_facts(tmp_path).free_inodes == 1 << 20


# Ports


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_a_free_one_is_found_and_left_free() -> None:
    facts = port_facts(LOOPBACK, 0)
    assert facts.free and facts.number > 0
    again = port_facts(LOOPBACK, facts.number)
    assert (again.free, again.number, again.holder) == (True, facts.number, "")


@LINUX
def test_a_taken_one_is_told_with_its_owner(listener: socket.socket) -> None:
    number = listener.getsockname()[1]
    facts = port_facts(LOOPBACK, number)
    assert not facts.free
    assert facts.holder == f"pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"


@LINUX
def test_an_owner_that_hides_is_told_by_its_user(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: object) -> str:
        raise PermissionError

    monkeypatch.setattr(gather.os, "readlink", denied)
    assert port_facts(LOOPBACK, listener.getsockname()[1]).holder == f"a process of uid {os.geteuid()}"


def test_our_own_server_is_no_conflict(listener: socket.socket) -> None:
    number = listener.getsockname()[1]
    assert port_facts(LOOPBACK, number, held_by_us=True).free


def test_a_port_that_was_just_given_up_is_free() -> None:
    """Connections of it that are ended linger in TIME_WAIT; a server may listen all the same."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", number))
        served, _ = listening.accept()
        served.close()  # the server's end first, as with a server that stops
        assert client.recv(1) == b""
        client.close()
    assert port_facts(LOOPBACK, number).free


def test_an_address_that_is_not_this_hosts() -> None:
    facts = port_facts(ip_address("192.0.2.1"), 3141)  # of documentation
    assert not facts.free
    assert facts.absent == "192.0.2.1"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this host has no IPv6")
def test_an_address_of_a_family_that_the_kernel_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_family: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(gather.socket, "socket", refuse)
    assert port_facts(ip_address("::1"), 3141).absent == "::1"


def test_another_family_is_another_port(listener: socket.socket) -> None:
    assert port_facts(ip_address("::1"), listener.getsockname()[1]).free
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        facts = port_facts(ip_address("::1"), six.getsockname()[1])
        assert not facts.free
        if sys.platform == "linux":
            assert f"pid {os.getpid()}" in facts.holder


@NOT_ROOT
def test_a_port_that_needs_root() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("every user may take any port here")
    assert "root" in port_facts(LOOPBACK, 80).holder


# Limits


def test_a_user_who_may_raise_limits_has_no_ceiling() -> None:
    """Asked of a process that is not root, which this one may be."""
    found = gather.ceiling()
    if os.geteuid() != 0:
        assert found is None
        return
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    may_raise = int(effective.split()[1], 16) >> 24 & 1
    assert (found is None) == bool(may_raise)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's capabilities")
@LINUX
def test_a_root_that_may_not_raise_limits_has_a_ceiling() -> None:
    script = (
        "import resource; from deployer.host.gather import ceiling\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
        "found = ceiling(); print(found.nofile, found.nproc)"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    nofile, nproc = map(int, done.stdout.split())
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    assert (nofile, nproc) == (512, most if hard == resource.RLIM_INFINITY else min(hard, most))


# The environment


def test_only_proxies_that_are_set_are_told() -> None:
    env = {"HTTP_PROXY": "http://p.example.com:1", "https_proxy": "", "no_proxy": "localhost", "HTTP_PROXY_USER": "x"}
    assert proxies(env) == {"HTTP_PROXY": "http://p.example.com:1", "no_proxy": "localhost"}


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, str]:
    """A file for each way to name a CA bundle."""
    found = {name: tmp_path / name for name in ("pip", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")}
    for path in found.values():
        path.touch()
    return {name: str(path) for name, path in found.items()}


def test_the_bundle_of_pip_comes_first(bundles: dict[str, str]) -> None:
    order = ["pip", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"]
    while order:
        env = {name: bundles[name] for name in order if name != "pip"}
        pip_cert = bundles["pip"] if "pip" in order else ""
        assert ca_file("auto", pip_cert=pip_cert, env=env) == Path(bundles[order.pop(0)]).resolve()
    assert ca_file("auto", pip_cert="", env={}) is None


def test_a_bundle_that_is_not_there_is_passed_over(bundles: dict[str, str], tmp_path: Path) -> None:
    env = {"REQUESTS_CA_BUNDLE": str(tmp_path), "SSL_CERT_FILE": bundles["SSL_CERT_FILE"]}
    found = ca_file("auto", pip_cert=str(tmp_path / "gone"), env=env)
    assert found == Path(bundles["SSL_CERT_FILE"]).resolve()


def test_who_names_one_gets_that_one(bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    named = tmp_path / "corporate.pem"
    with pytest.raises(ConflictError, match=re.escape(str(named))):
        ca_file("~/corporate.pem", pip_cert=bundles["pip"], env=bundles)
    named.touch()
    assert ca_file("~/corporate.pem", pip_cert=bundles["pip"], env=bundles) == named
    assert ca_file("", pip_cert=bundles["pip"], env=bundles) is None


def test_the_home_of_a_user_who_is_not_there_is_told() -> None:
    with pytest.raises(ProfileError, match="no user ~nosuch-user on this host"):
        ca_file("~nosuch-user/ca.pem", pip_cert="", env={})


def test_nothing_was_changed(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    (directory / ".nodeinfo").write_text("{}")
    before = directory.stat()
    data_facts(directory)
    after = directory.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_mtime_ns) == (stat.S_IMODE(before.st_mode), before.st_mtime_ns)


def test_a_directory_above_that_all_may_write_to_is_found(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "below").mkdir(parents=True)
    assert data_facts(shared / "below" / "data").writable_by_all is None
    shared.chmod(0o777)
    assert data_facts(shared / "below" / "data").writable_by_all == shared
    (tmp_path / "link").symlink_to(shared)
    assert data_facts(tmp_path / "link" / "below").writable_by_all == shared
    shared.chmod(0o1777)  # as /tmp has it: nobody renames what others own
    assert data_facts(shared / "below" / "data").writable_by_all is None
