"""Files on an index, when the server that lists them lies; and what is read out of a distribution."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from pathlib import Path

import pytest

from deployer.commands.package.download import fetch
from deployer.commands.token.create import lifetime
from deployer.devpi.distributions import exact_version, newest, parse_requirement, read
from deployer.devpi.packages import ListedFile, PackageApi, plain
from deployer.errors import ConflictError, DeployerError, NotReadyError, ServerRefused, UsageError, VerificationError
from tests.hostile import HostileServer, always, reply
from tests.upstream import make_sdist, make_wheel

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def simple_page(*files: object) -> bytes:
    return reply(json.dumps({"meta": {"api-version": "1.0"}, "name": "demo", "files": list(files)}).encode())


@pytest.mark.parametrize(
    "filename",
    [
        "../demo-1.0.tar.gz",
        "/etc/passwd",
        "a/b-1.0.tar.gz",
        ".hidden",
        "",
        "..",
        "x\n.whl",
        "x\\y.whl",
        "-rf",
        "a" * 300,
    ],
)
def test_a_name_that_leads_elsewhere_is_not_listed(filename: str) -> None:
    assert not plain(filename)
    page = simple_page({"filename": filename, "url": "x", "hashes": {}}, {"filename": "demo-1.0.tar.gz", "url": "x"})
    with HostileServer(always(page)) as server, PackageApi(server.url) as api:
        assert [file.filename for file in api.files("root/dev", "demo")] == ["demo-1.0.tar.gz"]


@pytest.mark.parametrize("answer", [b"[]", b'{"files": {}}', b'{"files": 1}', b"nothing"])
def test_what_is_no_list_of_files_is_told(answer: bytes) -> None:
    with HostileServer(always(reply(answer))) as server, PackageApi(server.url) as api, pytest.raises(NotReadyError):
        api.files("root/dev", "demo")


@pytest.mark.parametrize("item", [None, 1, [], {"filename": 1}, {"filename": "a-1.0.tar.gz", "hashes": [], "url": 7}])
def test_an_entry_of_any_shape_does_no_harm(item: object) -> None:
    with HostileServer(always(simple_page(item))) as server, PackageApi(server.url) as api:
        assert all(plain(file.filename) for file in api.files("root/dev", "demo"))


@pytest.mark.parametrize("url", ["http://evil.example.com/x", "file:///etc/passwd", "//evil.example.com/x", ""])
def test_no_file_is_fetched_from_elsewhere(url: str) -> None:
    with HostileServer(always(reply(b""))) as server, PackageApi(server.url) as api:
        with pytest.raises(ServerRefused, match="is on another host"):
            api.download(ListedFile(filename="x", url=url, sha256=""), io.BytesIO())
        assert server.sent == 0


def test_a_file_that_is_not_what_was_listed_is_not_kept(tmp_path: Path) -> None:
    with HostileServer(always(reply(b"other"))) as server, PackageApi(server.url) as api:
        file = ListedFile(filename="demo-1.0.tar.gz", url=f"{server.url}/f", sha256=EMPTY_SHA256)
        with pytest.raises(VerificationError, match="checksum mismatch"):
            fetch(api, file, tmp_path / file.filename)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_breaks_off_is_not_kept(tmp_path: Path) -> None:
    def half(request: bytes) -> list[bytes]:
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"]

    with HostileServer(half) as server, PackageApi(server.url) as api:  # type: ignore[arg-type]
        file = ListedFile(filename="demo-1.0.tar.gz", url=f"{server.url}/f", sha256="")
        with pytest.raises(NotReadyError, match="broke off"):
            fetch(api, file, tmp_path / file.filename)
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "demo-1.0.tar.gz"
    target.write_text("mine")
    with HostileServer(always(reply(b""))) as server, PackageApi(server.url) as api, pytest.raises(ConflictError):
        fetch(api, ListedFile(filename=target.name, url=f"{server.url}/f", sha256=EMPTY_SHA256), target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "a/b", "", "-x", "x-", "a?b", "a#b", "%2e%2e"])
def test_a_name_that_is_no_project_is_never_sent(name: str) -> None:
    with HostileServer(always(reply(b"{}"))) as server, PackageApi(server.url) as api:
        with pytest.raises(UsageError):
            api.files("root/dev", name)
        assert server.sent == 0


@pytest.mark.parametrize("step", [".", ".."])
def test_a_version_or_an_id_never_leads_to_what_is_above_it(step: str) -> None:
    """``==='' takes any text for a version, and a path is resolved before it is sent: the index would be deleted."""
    version = exact_version(parse_requirement(f"demo==={step}"))
    assert version == step
    with HostileServer(always(reply(b"{}"))) as server, PackageApi(server.url) as api:
        with pytest.raises(UsageError):
            api.remove("root/dev", "demo", version)
        with pytest.raises(UsageError):
            api.revoke_token("dev", step)
        assert server.received == []


@pytest.mark.parametrize("url", ["http://[", "http://[::1", "//[x]/y", "f\x00", "http://a b\x7f"])
def test_what_is_no_address_leads_nowhere(url: str) -> None:
    file = {"filename": "demo-1.0.tar.gz", "url": url}
    with HostileServer(always(simple_page(file))) as server, PackageApi(server.url) as api:
        (found,) = api.files("root/dev", "demo")
        with pytest.raises(ServerRefused, match="is on another host"):
            api.download(found, io.BytesIO())
        assert len(server.received) == 1


# Distributions


def listed(*filenames: str) -> tuple[ListedFile, ...]:
    return tuple(ListedFile(filename=name, url="", sha256="") for name in filenames)


FILES = listed("demo-1.0.tar.gz", "demo-1.10-py3-none-any.whl", "demo-1.9.tar.gz", "demo-2.0rc1.tar.gz", "readme.txt")


@pytest.mark.parametrize(
    ("text", "found"),
    [("demo", "demo-1.10-py3-none-any.whl"), ("demo==1.9", "demo-1.9.tar.gz"), ("demo<1.9", "demo-1.0.tar.gz")],
)
def test_the_newest_version_that_fits_is_taken(text: str, found: str) -> None:
    assert [file.filename for file in newest(FILES, parse_requirement(text))] == [found]


def test_a_version_that_is_absent_is_told_with_those_that_are_not() -> None:
    with pytest.raises(ServerRefused) as caught:
        newest(FILES, parse_requirement("demo==3"))
    assert "1.10" in caught.value.hint


@pytest.mark.parametrize("text", ["demo>=1", "demo==1.*", "demo==1,==2", "no project", ""])
def test_only_one_exact_version_is_one(text: str) -> None:
    with pytest.raises(UsageError):
        exact_version(parse_requirement(text))


@pytest.mark.parametrize("make", [make_wheel, make_sdist])
def test_the_form_is_the_metadata(make: object, tmp_path: Path) -> None:
    made = make("Acme_Core", "1.0", requires=["one>=1", "two"])  # type: ignore[operator]
    (tmp_path / made.filename).write_bytes(made.content)
    found = read(tmp_path / made.filename)
    assert (found.project, found.version, found.sha256) == ("acme-core", "1.0", made.sha256)
    assert found.form["name"] == "Acme_Core"
    assert found.form["requires_dist"] == ["one>=1", "two"]
    assert found.form["filetype"] in ("bdist_wheel", "sdist")


def zipped(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("demo-1.0-py3-none-any.whl", b"not a zip"),
        ("demo-1.0.tar.gz", b"not a tar"),
        ("demo-1.0.tar.gz", gzip.compress(random.Random(1).randbytes(4000))[:-9]),
        ("demo-1.0.tar.gz", gzip.compress(b"")[:10] + b"\xff" * 99),
        ("demo-1.0-py3-none-any.whl", zipped("demo-1.0.dist-info/METADATA", b"Name: demo\nVersion: no version\n")),
        ("demo-1.0-py3-none-any.whl", zipped("demo-1.0.dist-info/METADATA", b"Name: demo\n")),
        ("demo-1.0.exe", b""),
        ("demo-2.0-py3-none-any.whl", make_wheel("demo", "1.0").content),
        ("other-1.0-py3-none-any.whl", make_wheel("demo", "1.0").content),
        ("demo-1.0-py3-none-any.whl", make_sdist("demo", "1.0").content),
    ],
)
def test_what_is_no_distribution_is_refused(filename: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / filename).write_bytes(content)
    with pytest.raises(DeployerError) as caught:
        read(tmp_path / filename)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(DeployerError, match=r"No such file or directory$"):
        read(tmp_path / "demo-1.0.tar.gz")


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43200), ("90d", 7776000), ("1y", 31536000)])
def test_a_tokens_life(text: str, seconds: int) -> None:
    assert lifetime(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "never", "90", "11y", "1.5h", "-1d", "９d"])
def test_no_life_of_a_token(text: str) -> None:
    with pytest.raises(UsageError):
        lifetime(text)
