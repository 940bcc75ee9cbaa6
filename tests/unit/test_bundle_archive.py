"""The file of a bundle: what an interrupted run leaves, and what is refused of a bundle that is not ours."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.bundle import archive
from deployer.bundle.archive import SUMS, Bundle, blob
from deployer.errors import ConflictError, DeployerError, Locked, UsageError, VerificationError

CONTENTS = tuple(bytes([number]) * (700 * number + 1) for number in range(1, 6))
DIGESTS = tuple(hashlib.sha256(content).hexdigest() for content in CONTENTS)


@pytest.fixture(params=["file", "directory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = tmp_path / "bundle"
    if request.param == "directory":
        found.mkdir()
    return found


def write(path: Path, contents: tuple[bytes, ...] = CONTENTS, *, finish: bool = True) -> int:
    """Write a bundle with these blobs; how many of them were there."""
    wanted = {hashlib.sha256(content).hexdigest() for content in contents}
    with archive.writing(path, wanted.__contains__) as target:
        kept = len(target.sums)
        for content in contents:
            digest = hashlib.sha256(content).hexdigest()
            target.add(blob(digest), len(content), iter([content[:100], content[100:]]), sha256=digest)
        target.add("bundle.json", 2, [b"{}"])
        if finish:
            target.finish(lambda message: f"signed {len(message)}\n")
    return kept


def test_what_was_written_is_read(path: Path) -> None:
    assert write(path) == 0
    bundle = Bundle(path)
    sums = bundle.sums()
    assert list(sums.values())[: len(DIGESTS)] == list(DIGESTS)
    for name, digest in sums.items():
        bundle.check(name, digest)
    assert b"".join(bundle.pieces(blob(DIGESTS[2]))) == CONTENTS[2]
    assert bundle.read(archive.SIGNATURE, most=100).startswith(b"signed ")
    with pytest.raises(VerificationError):
        bundle.check("bundle.json", DIGESTS[0])


def test_other_tools_read_it(tmp_path: Path) -> None:
    with archive.writing(tmp_path / "b.tar", lambda _digest: True) as target:
        target.add(f"wheels/{'long' * 30}-1.0-py3-none-any.whl", 1, [b"x"])
        target.add(blob(DIGESTS[0]), len(CONTENTS[0]), [CONTENTS[0]], sha256=DIGESTS[0])
        target.finish(None)
    with tarfile.open(tmp_path / "b.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert Bundle(tmp_path / "out").sums() == Bundle(tmp_path / "b.tar").sums()


def test_an_unfinished_bundle_is_none_and_is_finished_by_the_next_run(path: Path) -> None:
    write(path, CONTENTS[:3], finish=False)
    with pytest.raises(DeployerError):
        Bundle(path)
    archive.refuse_existing(path, directory=path.is_dir())
    assert write(path) == 3
    assert set(Bundle(path).sums()) == {"bundle.json", *map(blob, DIGESTS)}


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 1024, 2000, 4096, 7000])
def test_a_file_that_breaks_off_anywhere_goes_on_from_its_last_whole_member(tmp_path: Path, cut: int) -> None:
    path, part = tmp_path / "b.tar", tmp_path / "b.tar.part"
    write(path, finish=False)
    whole = part.read_bytes()
    part.write_bytes(whole[:cut])
    ends = [sum(512 + -(-len(one) // 512) * 512 for one in CONTENTS[: number + 1]) for number in range(len(CONTENTS))]
    assert write(path) == sum(end <= cut for end in ends)
    assert set(Bundle(path).sums()) == {"bundle.json", *map(blob, DIGESTS)}
    assert not part.exists()


def test_damaged_and_foreign_leftovers_are_not_kept(path: Path) -> None:
    write(path, finish=False)
    if path.is_dir():
        (path / blob(DIGESTS[1])).write_bytes(b"damaged")
        (path / "blobs" / hashlib.sha256(b"other").hexdigest()).write_bytes(b"other")
        kept = len(DIGESTS) - 1
    else:
        part = path.with_name("bundle.part")
        content = bytearray(part.read_bytes())
        content[content.index(CONTENTS[1])] ^= 1
        part.write_bytes(content)
        kept = 1
    assert write(path) == kept
    assert set(Bundle(path).sums()) == {"bundle.json", *map(blob, DIGESTS)}
    for name, digest in Bundle(path).sums().items():
        Bundle(path).check(name, digest)


def test_other_content_than_promised_is_not_written(path: Path) -> None:
    for content in (b"short", b"quite another", b"far too long a text for it"):
        with archive.writing(path, lambda _digest: True) as target:
            with pytest.raises(VerificationError):
                target.add(blob(DIGESTS[0]), 13, [content], sha256=DIGESTS[0])
            assert target.sums == {}
    assert write(path) == 0
    Bundle(path).sums()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name, directory in (("file", False), ("full", True), ("link", False), ("none/file", False)):
        with pytest.raises(ConflictError):
            archive.refuse_existing(tmp_path / name, directory=directory)


def test_one_writer_at_a_time(path: Path) -> None:
    with (
        archive.writing(path, lambda _digest: True),
        pytest.raises(Locked),
        archive.writing(path, lambda _digest: True),
    ):
        raise AssertionError("two runs write one bundle")


# Hostile bundles


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def sums_of(**contents: bytes) -> tuple[tarfile.TarInfo, bytes]:
    lines = "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in contents.items())
    return member(SUMS, lines.encode())


GOOD = member("profile.yaml")
HOSTILE = {
    "a name that leads up": tar_of(member("../evil"), sums_of()),
    "a name that leads up from blobs": tar_of(member(f"blobs/../{'a' * 60}"), sums_of()),
    "an absolute name": tar_of(member("/etc/passwd"), sums_of()),
    "a hidden wheel": tar_of(member("wheels/.evil.whl"), sums_of()),
    "a wheel in a directory": tar_of(member("wheels/a/b.whl"), sums_of()),
    "an unknown name": tar_of(member("setup.py"), sums_of()),
    "a symbolic link": tar_of(member("profile.yaml", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), sums_of()),
    "a hard link": tar_of(member("profile.yaml", b"", type=tarfile.LNKTYPE, linkname="bundle.json"), sums_of()),
    "a device": tar_of(member("profile.yaml", b"", type=tarfile.CHRTYPE), sums_of()),
    "a FIFO": tar_of(member("profile.yaml", b"", type=tarfile.FIFOTYPE), sums_of()),
    "a sparse file": tar_of(member("profile.yaml", b"", type=tarfile.GNUTYPE_SPARSE), sums_of()),
    "a PAX header": tar_of(member("profile.yaml", pax_headers={"size": "9"}), sums_of(), form=tarfile.PAX_FORMAT),
    "a long name": tar_of(member("wheels/" + "a" * 600 + ".whl"), sums_of()),
    "a long name that leads up": tar_of(member("../" + "a" * 200 + ".whl"), sums_of()),
    "a long name of nothing": tar_of(member("wheels/" + "a" * 200 + ".whl"))[:1024],
    "two long names": tar_of(member("wheels/" + "a" * 200 + ".whl"))[:1024] * 2 + tar_of(GOOD),
    "a name twice": tar_of(GOOD, GOOD, sums_of(**{"profile.yaml": b"x"})),
    "a member without a checksum": tar_of(GOOD, sums_of()),
    "a checksum without a member": tar_of(GOOD, sums_of(**{"profile.yaml": b"x", "bundle.json": b"x"})),
    "a checksum twice": tar_of(GOOD, member(SUMS, (f"{'a' * 64}  profile.yaml\n" * 2).encode())),
    "checksums of another form": tar_of(GOOD, member(SUMS, b"SHA256 (profile.yaml) = 00\n")),
    "checksums that are not text": tar_of(GOOD, member(SUMS, bytes(range(256)))),
    "no checksums": tar_of(GOOD),
    "a member that breaks off": tar_of(member("image.tar", b"x" * 5000))[:2000],
    "a size beyond the file": bytes(tar_of(member("image.tar"))).replace(b"00000000001\0", b"77777777777\0"),
    "a damaged header": b"x" + tar_of(GOOD)[1:],
    "gzip": b"\x1f\x8b" + os.urandom(1000),
    "no tar": b"PK\x03\x04" + bytes(1000),
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(HOSTILE[case])
    with pytest.raises(VerificationError) as caught:
        Bundle(path).sums()
    assert "\n" not in caught.value.message and caught.value.hint
    assert [one.name for one in tmp_path.iterdir()] == ["b.tar"]


def directories(path: Path) -> Iterator[None]:
    """Each state is one more thing that no bundle has."""
    outside = path.parent / "outside"
    outside.write_text("secret")
    (path / "profile.yaml").symlink_to(outside)
    yield
    (path / "profile.yaml").unlink()
    (path / "profile.yaml").mkdir()
    yield
    (path / "profile.yaml").rmdir()
    os.mkfifo(path / "profile.yaml")
    yield
    (path / "profile.yaml").unlink()
    (path / "setup.py").write_text("")
    yield


def test_a_hostile_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    write(path)
    for _ in directories(path):
        with pytest.raises(VerificationError):
            Bundle(path)
    (path / "setup.py").unlink()
    Bundle(path).sums()


def test_a_missing_file_is_a_wrong_command_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("none", "fifo"):
        with pytest.raises(UsageError):
            Bundle(tmp_path / name)
