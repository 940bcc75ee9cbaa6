"""What holds of every client file, whichever client it is of. A new client is one more subclass at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, get_args

import pytest

from deployer.clients.client import Account, ClientFile, ClientSettings, Values
from deployer.clients.registry import CLIENT_FILES
from deployer.errors import ClientFileError
from deployer.profile.types import ClientName
from tests.client_place import NOBODY, OTHER, SETTINGS, Place, as_root, refused
from tests.death import sweep

FOREIGN = "https://packages.example.com/simple"
SECRET = ClientSettings(index_url="https://me:canary-secret@corp.example.com/simple/", timeout=5)


class ClientFileContract:
    """A subclass is the contract of one client.

    ``contents``: files as their users write them, each of which the client reads; the first is one that :meth:`edited`
    may change. ``edited``: the file after another program added a setting of its own. ``foreign``: a file that only
    sets the index, to ``FOREIGN``. ``unreadable``: a file that the client refuses. ``overriding``: variables that
    override the file's index with ``FOREIGN``.
    """

    client: ClassVar[ClientFile]
    contents: ClassVar[Mapping[str, bytes]]
    foreign: ClassVar[bytes]
    unreadable: ClassVar[bytes]
    overriding: ClassVar[Mapping[str, str]]

    @staticmethod
    def edited(content: bytes) -> bytes:
        raise NotImplementedError

    def install(self, place: Place) -> None:
        """Put the program there, if the client has to be seen."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "content" in metafunc.fixturenames:
            metafunc.parametrize("content", list(self.contents.values()), ids=list(self.contents))

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        place = Place(tmp_path, self.client)
        self.install(place)
        return place

    def values(self, settings: ClientSettings) -> Values:
        """What is written into the user's file."""
        account = Account(env={}, home=Path("/nowhere"), state=Path("/nowhere"), directory=Path("/nowhere"))
        return self.client.values(settings, self.client.detect("user", account))

    @pytest.fixture
    def first(self) -> bytes:
        return next(iter(self.contents.values()))

    # What is merged

    def test_the_client_uses_what_is_written(self, place: Place, content: bytes) -> None:
        place.write(content)
        change = place.configure()
        assert (change.path, change.before, change.masks) == (place.conf, content, ())
        assert self.client.index_key in change.keys
        config = self.client.read(place.account)
        assert config.effective(self.client.index_key) == (SETTINGS.index_url, str(place.conf))
        for key, value in self.values(SETTINGS).items():
            assert config.effective(key).value == value

    def test_merging_again_changes_nothing(self, content: bytes) -> None:
        values = self.values(SETTINGS)
        merged = self.client.merge(content, values)
        assert merged != content and self.client.merge(merged, values) == merged

    def test_comments_are_kept(self, content: bytes) -> None:
        merged = self.client.merge(content, self.values(SETTINGS)).splitlines()
        comments = [line for line in content.splitlines() if line.lstrip().startswith((b"#", b";"))]
        assert [line for line in merged if line in comments] == comments

    def test_unmerging_is_the_inverse_of_merging(self, content: bytes) -> None:
        written = [self.values(settings) for settings in (SETTINGS, OTHER)]
        merged = self.client.merge(self.client.merge(content, written[0]), written[1])
        assert self.client.unmerge(merged, original=content, written=written) == (content, ())

    def test_a_file_of_ours_alone_unmerges_to_nothing(self) -> None:
        values = self.values(SETTINGS)
        rest = self.client.unmerge(self.client.merge(b"", values), original=b"", written=[values])
        assert (rest.content.strip(), rest.kept) == (b"", ())

    @pytest.mark.parametrize("end", ["\n", "\r", "\x00", " x"])
    def test_a_value_that_would_begin_another_setting_is_refused(self, first: bytes, end: str) -> None:
        values = self.values(ClientSettings(index_url=f"{SETTINGS.index_url}{end}", timeout=60))
        with pytest.raises(ClientFileError):
            self.client.merge(first, values)

    # What is undone

    def test_bytes_and_mode_are_restored(self, place: Place, content: bytes) -> None:
        place.write(content, 0o640)
        before = place.tree()
        for settings in (SETTINGS, OTHER, SETTINGS):
            assert place.configure(settings).changed
        change = place.undo()
        assert change.changed and change.warnings == ()
        assert place.tree() == before and place.records() == []
        assert not place.undo().changed

    def test_a_new_file_and_its_directories_are_removed(self, place: Place) -> None:
        assert place.configure().before is None
        assert place.url() == SETTINGS.index_url
        place.undo()
        assert place.tree() == {} and place.records() == []

    def test_configuring_again_writes_nothing(self, place: Place, first: bytes) -> None:
        place.write(first)
        place.configure()
        before = place.conf.stat()
        change = place.configure()
        assert not change.changed and change.backup is None
        assert (place.conf.stat().st_ino, place.conf.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_a_preview_writes_nothing(self, place: Place, content: bytes) -> None:
        place.write(content)
        before = place.tree()
        change = place.preview()
        assert change.changed and place.tree() == before and not place.state.exists()
        assert change.after == place.configure().after

    # What belongs to others

    def test_edits_of_others_are_kept(self, place: Place, first: bytes) -> None:
        place.write(first)
        place.configure()
        place.conf.write_bytes(self.edited(place.conf.read_bytes()))
        change = place.undo()
        assert place.conf.read_bytes() == self.edited(first)
        assert "another program" in change.warnings[0]

    def test_edits_of_others_between_two_writes_are_kept(self, place: Place, first: bytes) -> None:
        place.write(first)
        place.configure()
        place.conf.write_bytes(self.edited(place.conf.read_bytes()))
        place.configure(OTHER)
        place.undo()
        assert place.conf.read_bytes() == self.edited(first)

    def test_an_index_that_somebody_else_set_is_kept(self, place: Place, first: bytes) -> None:
        place.write(first)
        place.configure()
        place.conf.write_bytes(self.foreign)
        change = place.undo()
        assert (place.conf.read_bytes(), place.url()) == (self.foreign, FOREIGN)
        assert any(self.client.index_key in line for line in change.warnings)

    def test_what_the_client_cant_read_is_left_alone(self, place: Place) -> None:
        place.write(self.unreadable)
        before = place.tree()
        for call in (place.configure, place.preview):
            assert str(place.conf) in refused(call).message
        assert place.tree() == before and place.records() == []

    def test_a_symlink_is_followed_and_stays(self, place: Place, first: bytes) -> None:
        dotfile = place.home / "dotfile"
        dotfile.write_bytes(first)
        place.conf.parent.mkdir(parents=True)
        place.conf.symlink_to(dotfile)
        before = place.tree()
        place.configure()
        assert place.conf.is_symlink() and dotfile.read_bytes() != first
        place.undo()
        assert place.tree() == before

    @as_root
    def test_a_file_of_another_user_is_left_alone(self, place: Place, first: bytes) -> None:
        os.chown(place.write(first), NOBODY, -1)
        assert f"uid {NOBODY}" in refused(place.configure).message
        assert place.conf.read_bytes() == first

    def test_a_scope_that_it_does_not_have_is_refused(self, place: Place) -> None:
        assert "user" in self.client.scopes
        error = refused(lambda: place.configure(scope="nowhere"))
        assert all(scope in error.hint for scope in self.client.scopes)
        assert place.tree() == {}

    def test_credentials_make_a_file_private(self, place: Place, first: bytes) -> None:
        place.write(first, 0o644)
        change = place.configure(SECRET)
        assert stat.S_IMODE(place.conf.stat().st_mode) == 0o600
        assert "canary" not in repr(change)
        place.undo()
        assert stat.S_IMODE(place.conf.stat().st_mode) == 0o644

    # What overrides it

    def test_an_override_by_the_environment_is_reported(self, place: Place) -> None:
        place.env |= self.overriding
        masks = place.configure().masks
        assert any(name in mask and str(place.conf) in mask for name in self.overriding for mask in masks)
        value, source = self.client.read(place.account).effective(self.client.index_key)
        assert value == FOREIGN and source in self.overriding

    def test_the_variables_of_one_command_override_the_file(self, place: Place) -> None:
        place.configure(OTHER)
        place.env |= self.overriding | self.client.variables(SETTINGS)
        assert place.url() == SETTINGS.index_url

    def test_a_variable_of_the_same_value_is_no_override(self, place: Place) -> None:
        place.env |= self.client.variables(SETTINGS)
        assert place.configure().masks == ()

    # What a crash leaves

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("there", [False, True], ids=["new", "existing"])
    def test_configure_may_die_anywhere(self, place: Place, first: bytes, there: bool) -> None:
        former = first if there else None
        if former is not None:
            place.write(former, 0o640)
        original = place.tree()
        place.configure()
        written = place.conf.read_bytes()
        place.undo()

        def check() -> None:
            assert (place.conf.read_bytes() if place.conf.exists() else None) in (former, written)
            place.configure()
            assert place.conf.read_bytes() == written
            place.undo()
            assert place.tree() == original and place.records() == []

        assert sweep(place.configure, check, lambda: None) > 25

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("there", [False, True], ids=["new", "existing"])
    def test_undo_may_die_anywhere(self, place: Place, first: bytes, there: bool) -> None:
        former = first if there else None
        if former is not None:
            place.write(former, 0o640)
        original = place.tree()

        def check() -> None:
            assert (place.conf.read_bytes() if place.conf.exists() else None) in (former, written)
            place.undo()
            assert place.tree() == original and place.records() == []

        place.configure()
        written = place.conf.read_bytes()
        assert sweep(place.undo, check, place.configure) > 10


class TestPip(ClientFileContract):
    client = CLIENT_FILES["pip"]
    contents: ClassVar = {
        "crlf": b"# mine\r\n[global]\r\ntimeout = 3\r\n",
        "empty": b"",
        "no end of line": b"[global]\nindex-url = https://corp.example.com/simple",
        "other sections": b"; mine\n[install]\nuser = true\n\n[list]\nformat = columns\n",
        "two spellings": b"[global]\nindex_url = a\nINDEX-URL: b\n# c\ndefault-timeout=1\n",
    }
    foreign = f"[global]\nindex-url = {FOREIGN}\n".encode()
    unreadable = b"index-url = before any section\n"
    overriding: ClassVar = {"PIP_INDEX_URL": FOREIGN}

    @staticmethod
    def edited(content: bytes) -> bytes:
        return content + b"[install]\nuser = true\n"


class TestUv(ClientFileContract):
    client = CLIENT_FILES["uv"]
    contents: ClassVar = {
        "crlf": b"# mine\r\nnative-tls = true # why\r\n",
        "empty": b"",
        "another default": b"[[index]]\nname = 'corp'\nurl = 'https://corp.example.com/' # corp\ndefault = true\n",
        "the older key": b"index-url = 'https://corp.example.com/simple'",
        "inline": b"index = [{url = 'https://corp.example.com/', default = true}] # one\n[pip]\nno-build = true\n",
    }
    foreign = f"[[index]]\nurl = '{FOREIGN}'\ndefault = true\n".encode()
    unreadable = b"index-url = no string\n"
    overriding: ClassVar = {"UV_INDEX_URL": FOREIGN}

    @staticmethod
    def edited(content: bytes) -> bytes:
        return content + b"[pip]\r\nno-build = true\r\n"


class TestPoetry(ClientFileContract):
    client = CLIENT_FILES["poetry"]
    contents: ClassVar = {
        "comments": b"# mine\n[virtualenvs]\nin-project = true # why\n",
        "empty": b"",
        "another": b"[plugins.pypi_mirror]\nurl = 'https://corp.example.com/simple'",
    }
    foreign = f"[plugins.pypi_mirror]\nurl = '{FOREIGN}'\n".encode()
    unreadable = b"[plugins\n"
    overriding: ClassVar = {"POETRY_PYPI_MIRROR_URL": FOREIGN}

    @staticmethod
    def edited(content: bytes) -> bytes:
        return content + b"[installer]\nparallel = true\n"

    def install(self, place: Place) -> None:
        """With the plugin, for poetry itself has no such setting."""
        prefix = place.home.parent / "poetry"
        (prefix / "lib/python3.12/site-packages/poetry_plugin_pypi_mirror-0.6.5.dist-info").mkdir(parents=True)
        (prefix / "bin").mkdir()
        (prefix / "bin/poetry").write_text("#!/bin/sh\n")
        (prefix / "bin/poetry").chmod(0o755)
        place.env["PATH"] = f"{prefix / 'bin'}:{os.defpath}"


class TestPdm(ClientFileContract):
    client = CLIENT_FILES["pdm"]
    contents: ClassVar = {
        "crlf": b"# mine\r\n[venv]\r\nin_project = true\r\n",
        "empty": b"",
        "another": b"[pypi]\nverify_ssl = true\nurl = 'https://corp.example.com/simple' # corp\n",
        "dotted": b"pypi.url = 'https://corp.example.com/simple'\n",
    }
    foreign = f"[pypi]\nurl = '{FOREIGN}'\n".encode()
    unreadable = b"[pypi]\nurl = 1\nurl = 2\n"
    overriding: ClassVar = {"PDM_PYPI_URL": FOREIGN}

    @staticmethod
    def edited(content: bytes) -> bytes:
        return content + b"[python]\r\nuse_venv = true\r\n"


def contracts() -> list[type[ClientFileContract]]:
    return ClientFileContract.__subclasses__()


def test_every_known_client_file_has_its_contract_and_its_name_in_the_profile() -> None:
    assert sorted(contract.client.name for contract in contracts()) == sorted(CLIENT_FILES)
    assert sorted(get_args(ClientName)) == sorted(CLIENT_FILES)


@pytest.mark.parametrize("name", CLIENT_FILES)
def test_the_registry_knows_a_client_by_its_own_name(name: ClientName) -> None:
    assert CLIENT_FILES[name].name == name
