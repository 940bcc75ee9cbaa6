"""Certificates of HTTPS: what is read, what is refused, what our own CA signs and when it is made anew."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployer.certificates.authority import Authority
from deployer.certificates.pair import pair, uncovered
from deployer.deployment import certificate
from deployer.errors import ConflictError
from deployer.plan.facts import CertificateFacts
from deployer.profile.models import Network, Tls

NOW = datetime(2026, 3, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
NAMES = ("index.example.com", "192.0.2.7", "2001:db8::7", "localhost")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("socket.gethostname", lambda: "Host-1")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.made(NAMES, NOW, title="tests", valid=10 * YEAR)


def facts(network: Network, *, now: datetime = NOW) -> CertificateFacts:
    found = certificate.facts(network, "devpi", home=Path("/nowhere"), now=now)
    assert found is not None
    return found


def obtain(network: Network, planned: CertificateFacts) -> str:
    with ExitStack() as rollback:
        found = certificate.obtain(network, "devpi", planned, home=Path("/nowhere"), rollback=rollback)
        rollback.pop_all()
    return found.shown.fingerprint


def test_a_ca_signs_for_its_names_and_is_loaded_as_it_was_made(authority: Authority) -> None:
    chain, key = authority.signed(NAMES, NOW, valid=YEAR)
    found = pair(chain.encode(), key.encode())
    assert (set(found.shown.names), found.shown.ends) == (set(NAMES), NOW + YEAR)
    assert pair(found.text.encode(), found.text.encode()) == found
    again = Authority.loaded(authority.certificate, authority.key_text)
    assert (set(again.names), again.ends, again.title) == (set(NAMES), authority.ends, authority.title)


def test_no_certificate_outlives_its_ca(authority: Authority) -> None:
    chain, key = authority.signed(NAMES, NOW + 10 * YEAR - timedelta(days=1), valid=YEAR)
    assert pair(chain.encode(), key.encode()).shown.ends == authority.ends


def test_openssl_takes_the_names_of_the_ca_and_no_others(authority: Authority, tmp_path: Path) -> None:
    """Names and addresses, as a client of Python sees them; nothing is sent over a network."""
    now = datetime.now(UTC)
    fresh = Authority.made(NAMES, now, title="tests", valid=YEAR)
    for name, taken in ((NAMES[0], True), (NAMES[1], True), (NAMES[2], True), ("other.example.com", False)):
        chain, key = fresh.signed([name], now, valid=YEAR)
        path = tmp_path / "server.pem"
        path.write_text(chain + key)
        assert shaken(path, fresh.certificate, name) is taken, name


def shaken(server_pem: Path, ca: str, name: str) -> bool:
    """Whether a client that trusts ``ca`` takes the server for ``name``."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(server_pem)
    client.load_verify_locations(cadata=ca)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return theirs.version() is not None


@pytest.mark.parametrize(
    ("name", "wanted", "missing"),
    [
        ("index.example.com", "INDEX.example.com.", False),
        ("*.example.com", "index.example.com", False),
        ("*.example.com", "a.index.example.com", True),
        ("*.example.com", "example.com", True),
        ("example.com", "index.example.com", True),
        ("192.0.2.7", "192.0.2.7", False),
        ("*.0.2.7", "192.0.2.7", True),
        ("2001:db8::7", "2001:0db8:0:0::7", False),
    ],
)
def test_names_are_covered_as_clients_see_it(name: str, wanted: str, missing: bool) -> None:
    assert bool(uncovered([name], [wanted])) is missing


def test_what_is_no_pair_is_said(authority: Authority) -> None:
    chain, key = authority.signed(NAMES, NOW, valid=YEAR)
    own = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    closed = own.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"x"))
    other = authority.signed(NAMES, NOW, valid=YEAR)[1]
    for certificate_, key_, why in (
        (chain, other, "the key is not that of the certificate"),
        (chain, chain, "there is no private key"),
        (key, key, "it holds no certificate"),
        ("", key, "it holds no certificate"),
        (chain, closed.decode(), "the key has a passphrase"),
        (chain, key[:100], "there is no private key"),
    ):
        with pytest.raises(ValueError, match=why):
            pair(certificate_.encode(), key_.encode())


def test_parameters_before_a_key_do_not_matter(authority: Authority) -> None:
    chain, key = authority.signed(NAMES, NOW, valid=YEAR)
    before = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert pair(chain.encode(), (before + key).encode()) == pair(chain.encode(), key.encode())


# Our own CA


def test_our_own_certificate_is_renewed_in_time_by_the_same_ca() -> None:
    network = Network(tls=Tls(cert="auto", names=("Index.example.com",)), bind=IPv4Address("192.0.2.7"))
    first = facts(network)
    assert first.due and not first.new_authority
    assert first.names == ("index.example.com", "192.0.2.7", "host-1", "localhost", "127.0.0.1", "::1")
    made = obtain(network, first)
    kept = certificate.Kept.of("devpi")
    ca = kept.ca.read_bytes()
    assert {path.stat().st_mode & 0o777 for path in (kept.ca_key, kept.server)} == {0o600}
    now = datetime.now(UTC)
    there = facts(network, now=now)
    assert (there.due, there.fingerprint) == (False, made)
    assert obtain(network, there) == made
    later = facts(network, now=now + certificate.VALID - certificate.RENEWED + timedelta(hours=1))
    assert later.due and not later.new_authority
    assert obtain(network, later) != made
    assert kept.ca.read_bytes() == ca
    # A name less needs nothing new; one more needs another CA, which clients have to get.
    assert not facts(network.model_copy(update={"tls": Tls(cert="auto")}), now=now).due
    more = facts(network.model_copy(update={"hosts": ("new.example.com",)}), now=now)
    assert (more.due, more.new_authority) == (True, "new.example.com")
    obtain(network, more)
    assert kept.ca.read_bytes() != ca


def test_a_rollback_restores_the_ca_and_the_certificate() -> None:
    network = Network(tls=Tls(cert="auto"))
    kept = certificate.Kept.of("devpi")
    with ExitStack() as rollback:
        certificate.obtain(network, "devpi", facts(network), home=Path("/nowhere"), rollback=rollback)
    assert not kept.directory.exists()
    obtain(network, facts(network))
    former = {path.name: path.read_bytes() for path in kept.directory.iterdir()}
    more = network.model_copy(update={"hosts": ("new.example.com",)})
    with ExitStack() as rollback:
        certificate.obtain(more, "devpi", facts(more), home=Path("/nowhere"), rollback=rollback)
    assert {path.name: path.read_bytes() for path in kept.directory.iterdir()} == former


def test_a_damaged_ca_is_not_replaced_silently() -> None:
    network = Network(tls=Tls(cert="auto"))
    obtain(network, facts(network))
    certificate.Kept.of("devpi").ca_key.write_text("nothing")
    with pytest.raises(ConflictError, match=r"the CA in .* can't be used"):
        facts(network)


# Files of the operator


def test_the_operator_s_files_are_looked_at(tmp_path: Path, authority: Authority) -> None:
    chain, key = authority.signed(["index.example.com"], NOW, valid=timedelta(days=90))
    for name, text in (("cert.pem", chain), ("key.pem", key)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    network = Network(tls=Tls(cert=str(tmp_path / "cert.pem"), key="~/key.pem"))
    found = certificate.facts(network, "devpi", home=tmp_path, now=NOW)
    assert found is not None
    assert (found.problem, found.names, found.left) == ("", ("index.example.com",), timedelta(days=90))
    assert found.open_key == str(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    again = certificate.facts(network, "devpi", home=tmp_path, now=NOW)
    assert again is not None and not again.open_key
    (tmp_path / "key.pem").unlink()
    gone = certificate.facts(network, "devpi", home=tmp_path, now=NOW)
    assert gone is not None and "key.pem can't be read" in gone.problem
