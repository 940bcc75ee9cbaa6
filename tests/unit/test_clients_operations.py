"""All clients of a host at once: what each uses, what is written where, and what a failure leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.clients.client import Account, ClientSettings
from deployer.clients.known import KNOWN
from deployer.clients.registry import CLIENT_FILES
from deployer.errors import ClientFileError, UsageError
from deployer.operations.clients import apply, checks, difference, listed, proposed, restore, table, targets

OURS = "http://127.0.0.1:3141/root/dev/+simple/"
SETTINGS = ClientSettings(index_url=OURS, timeout=60)
PROJECT = b"# mine\n[project]\nname = 'x' # why\n\n[tool.ruff]\nline-length = 100\n"


class Host:
    """A home with programs and a project, and who works there."""

    def __init__(self, root: Path, *programs: str) -> None:
        self.home, self.project, self.bin = root / "home", root / "home/project", root / "bin"
        self.project.mkdir(parents=True)
        self.bin.mkdir()
        (self.project / "pyproject.toml").write_bytes(PROJECT)
        for program in programs:
            (self.bin / program).write_text("#!/bin/sh\n")
            (self.bin / program).chmod(0o755)
        self.env = {"PATH": str(self.bin), "XDG_CONFIG_DIRS": str(root / "machine")}
        self.account = Account(env=self.env, home=self.home, state=root / "state", directory=self.project)

    def apply(self, *names: str, scope: str = "user") -> list[str]:
        chosen, self.left = targets(names, scope, self.account)
        return sorted(
            str(change.path.relative_to(self.home)) for change in apply(chosen, SETTINGS, self.account).values()
        )

    def tree(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.home.rglob("*") if path.is_file()}

    def levels(self) -> dict[str, str]:
        return {check.name: str(check.level) for check in checks(self.account, OURS)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, "pip", "uv", "pdm", "poetry", "pipx", "pex")


def test_all_that_is_here_is_configured_and_restored(host: Host) -> None:
    before = host.tree()
    assert host.apply() == [".config/pdm/config.toml", ".config/pip/pip.conf", ".config/uv/uv.toml"]
    assert [line.split()[0] for line in host.left] == ["poetry", "pex"]
    assert host.levels() == {
        "pip": "ok",
        "uv": "ok",
        "poetry": "failure",
        "pdm": "ok",
        "pipx": "ok",
        "pex": "warning",
    }
    restored, elsewhere = restore((), "", host.account)
    assert len(restored) == 3 and elsewhere == [] and host.tree() == before


def test_clients_share_the_file_of_a_project(host: Host) -> None:
    assert host.apply("uv", "poetry", "pdm", scope="project") == [
        "project/pdm.toml",
        "project/pyproject.toml",
        "project/pyproject.toml",
    ]
    whole = (host.project / "pyproject.toml").read_bytes()
    assert whole.startswith(PROJECT) and whole.count(OURS.encode()) == 2
    restore(("uv",), "project", host.account)
    assert b"tool.poetry" in (host.project / "pyproject.toml").read_bytes()
    assert b"tool.uv" not in (host.project / "pyproject.toml").read_bytes()
    restore(("poetry", "pdm"), "", host.account)
    assert (host.project / "pyproject.toml").read_bytes() == PROJECT
    assert not (host.project / "pdm.toml").exists()


def test_undoing_all_says_nothing_of_other_programs(host: Host) -> None:
    host.apply("uv", "poetry", scope="project")
    done, _ = restore((), "", host.account)
    assert [change.warnings for _, change in done] == [(), ()]
    assert (host.project / "pyproject.toml").read_bytes() == PROJECT


def test_files_of_another_project_are_named(host: Host) -> None:
    host.apply("uv", scope="project")
    elsewhere = Account(env=host.env, home=host.home, state=host.account.state, directory=host.home)
    assert restore((), "", elsewhere) == ([], [host.project / "pyproject.toml"])


def test_a_reader_brings_the_clients_whose_files_it_reads(host: Host) -> None:
    assert host.apply("pipx") == [".config/pip/pip.conf", ".config/uv/uv.toml"]


@pytest.mark.parametrize(
    ("names", "scope", "told"),
    [
        (("pex",), "user", "from no file"),
        (("poetry",), "user", "is not installed"),
        (("poetry",), "machine", "no file of the scope"),
        (("pip",), "project", "no file of the scope"),
        (("pip",), "environment", "no venv is active"),
    ],
)
def test_what_cant_be_configured_is_refused_before_anything_is_written(
    host: Host, names: tuple[str, ...], scope: str, told: str
) -> None:
    before = host.tree()
    with pytest.raises(ClientFileError) as error:
        host.apply(*names, scope=scope)
    assert told in error.value.message and error.value.hint and host.tree() == before


def test_unknown_words_are_refused(host: Host) -> None:
    for names, scope in ((("npm",), "user"), ((), "galaxy")):
        with pytest.raises(UsageError) as error:
            host.apply(*names, scope=scope)
        assert error.value.hint.startswith("use ")


def test_one_file_that_cant_be_written_stops_all(host: Host) -> None:
    (host.home / ".config/pdm").mkdir(parents=True)
    (host.home / ".config/pdm/config.toml").write_bytes(b"[pypi\n")
    before = host.tree()
    with pytest.raises(ClientFileError):
        host.apply("pip", "uv", "pdm")
    assert host.tree() == before


def test_a_failure_half_way_takes_back_what_was_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply("pip")
    before = host.tree()
    other = ClientSettings(index_url=OURS.replace("3141", "4000"), timeout=60)
    chosen, _ = targets(("pip", "uv", "pdm"), "user", host.account)

    from deployer.operations import clients as module

    configure = module.configure

    def failing(client: object, *words: object, **more: object) -> object:
        if client is CLIENT_FILES["pdm"]:
            raise ClientFileError("full", hint="x")
        return configure(client, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "configure", failing)
    with pytest.raises(ClientFileError):
        apply(chosen, other, host.account)
    assert host.tree() == before
    restore((), "", host.account)
    assert set(host.tree()) == {str(host.project / "pyproject.toml")}


def test_a_diff_changes_nothing_and_shows_no_password(host: Host) -> None:
    before = host.tree()
    chosen, _ = targets(("uv",), "user", host.account)
    secret = ClientSettings(index_url="https://me:canary-secret@corp.example.com/simple/", timeout=60)
    (change,) = proposed(chosen, secret, host.account).values()
    assert "+[[index]]" in difference(change) and "canary" not in difference(change)
    assert host.tree() == before


def test_no_password_is_written_into_a_file_that_others_read(host: Host) -> None:
    chosen, _ = targets(("uv",), "project", host.account)
    secret = ClientSettings(index_url="https://me:canary-secret@corp.example.com/simple/", timeout=60)
    with pytest.raises(ClientFileError) as error:
        apply(chosen, secret, host.account)
    assert "password" in error.value.message and host.tree()[str(host.project / "pyproject.toml")] == PROJECT


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("pyproject.toml", "[[tool.uv.index]]\nname = 'corp'\nurl = 'https://corp.example.com/'\n", "uv"),
        ("pyproject.toml", "[tool.uv.pip]\nextra-index-url = ['https://corp.example.com/']\n", "uv"),
        ("pyproject.toml", "[[tool.uv.index]]\nurl = 'https://corp.example.com/'\ndefault = true\n", "uv"),
        ("pyproject.toml", "[[tool.pdm.source]]\nname = 'pypi'\nurl = 'https://corp.example.com/'\n", "pdm"),
        ("pyproject.toml", "[[tool.pdm.source]]\nname = 'corp'\nurl = 'https://corp.example.com/'\n", "pdm"),
        ("pdm.toml", "[pypi.corp]\nurl = 'https://corp.example.com/'\n", "pdm"),
        ("uv.toml", "no-index = true\n", "uv"),
    ],
)
def test_a_project_that_bypasses_the_index_is_found(host: Host, name: str, text: str, told: str) -> None:
    host.apply("pip", "uv", "pdm")
    (host.project / name).write_text(text)
    (found,) = [check for check in checks(host.account, OURS) if check.name == told]
    assert found.level == "failure" and found.cure and str(host.project / name) in found.evidence + found.cure


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PDM_PYPI_URL", "PIP_INDEX_URL"])
def test_a_variable_that_bypasses_the_index_is_found(host: Host, name: str) -> None:
    host.apply("pip", "uv", "pdm")
    host.env[name] = "https://corp.example.com/simple"
    found = [check for check in checks(host.account, OURS) if name in check.evidence and check.level == "failure"]
    assert found and all(check.cure == f"unset {name}" for check in found)


def test_files_that_uv_does_not_read_are_found(host: Host) -> None:
    host.apply("uv")
    host.env["UV_NO_CONFIG"] = "1"
    assert host.levels()["uv"] == "failure"
    with pytest.raises(ClientFileError) as error:
        host.apply("uv")
    assert "UV_NO_CONFIG" in error.value.message


def test_the_list_says_where_an_index_is_from(host: Host) -> None:
    host.apply("uv", "pip")
    uses = {use.name: use for use in listed(host.account, OURS)}
    assert (uses["uv"].key, uses["uv"].ours) == ("index[default=true].url", True)
    assert (uses["pip"].key, uses["pip"].source) == ("[global] index-url", str(host.home / ".config/pip/pip.conf"))
    assert uses["pdm"].ours is False and uses["pipx"].ours is True and uses["conda"].program == ""
    text = table(list(uses.values()))
    assert "not installed: hatch, pip-tools, conda" in text and "as pip and uv" in text


def test_every_client_reads_files_of_clients_before_it() -> None:
    names = list(KNOWN)
    for name, known in KNOWN.items():
        assert all(other in CLIENT_FILES and names.index(other) <= names.index(name) for other in known.reads)
        assert known.reads or known.cure
    assert set(CLIENT_FILES) <= set(KNOWN)
