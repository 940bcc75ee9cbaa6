"""The CA of an index, as each client is told it; no client is told to trust a host without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.clients.client import ClientSettings
from deployer.clients.registry import CLIENT_FILES
from deployer.clients.variables import variables
from deployer.commands.clients import apply
from deployer.errors import UsageError
from deployer.operations.client_files import settings_for
from deployer.operations.tls import Authority

URL = "https://index.example.com:3443/root/dev/+simple/"
WITH = ClientSettings(index_url=URL, timeout=60, ca="/etc/team/ca.pem")
WITHOUT = ClientSettings(index_url=URL, timeout=60)


def test_variables_name_the_ca() -> None:
    more = {name: value for name, value in variables(WITH).items() if name not in variables(WITHOUT)}
    assert more == dict.fromkeys(
        ("PIP_CERT", "SSL_CERT_FILE", "PDM_PYPI_CA_CERTS", "POETRY_CERTIFICATES_DEPLOYER_CERT"), "/etc/team/ca.pem"
    )
    assert "PIP_TRUSTED_HOST" not in variables(WITH)


@pytest.mark.parametrize(
    ("client", "file", "key", "content"),
    [
        ("pip", "pip.conf", "cert", "cert = /etc/team/ca.pem"),
        ("pdm", "config.toml", "pypi.ca_certs", 'ca_certs = "/etc/team/ca.pem"'),
        ("uv", "uv.toml", "", ""),
        ("poetry", "config.toml", "", ""),
    ],
)
def test_a_file_has_the_ca_where_its_client_reads_it(client: str, file: str, key: str, content: str) -> None:
    """The other clients have it elsewhere, and their users are told where."""
    it, path = CLIENT_FILES[client], Path("/home/ann") / file  # type: ignore[index]
    values = it.values(WITH, path)
    merged = it.merge(b"", values)
    assert (values.keys() - it.values(WITHOUT, path).keys()) == ({key} if key else set())
    assert content in merged.decode() and it.merge(merged, values) == merged
    assert b"trusted" not in merged
    cautions = it.cautions(WITH)
    assert bool(cautions) is not bool(key) and all("/etc/team/ca.pem" in line for line in cautions)
    assert not it.cautions(WITHOUT)


def test_a_project_s_file_has_no_path_of_this_host() -> None:
    assert not any("ca" in key.rpartition(".")[2] for key in CLIENT_FILES["pdm"].values(WITH, Path("pyproject.toml")))


def test_a_ca_is_for_https_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path))
    with pytest.raises(UsageError, match="--ca is for an https address"):
        settings_for("devpi", url="http://index.example.com/root/dev/+simple/", ca="/etc/team/ca.pem")
    assert settings_for("devpi", url=URL, ca="/etc/team/ca.pem").ca == "/etc/team/ca.pem"
    assert apply.Options().ca == ""


def test_what_a_colleague_is_told_names_the_index_and_the_ca() -> None:
    steps = dict(Authority(path=Path("ca.pem"), text="", url="", simple_url=URL).steps)
    assert set(steps) == {"address", "pip", "uv", "poetry", "deployer"}
    assert all(URL in words for words in steps.values())
    assert all("ca.pem" in words for name, words in steps.items() if name != "address")
