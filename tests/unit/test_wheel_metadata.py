"""Core metadata out of a wheel: by how few bytes, and what is refused."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zipfile
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("devpi_server")

from deployer.server.mirrors import wheel_metadata
from deployer.server.mirrors.ranges import Piece, RangesUnsupported
from deployer.server.mirrors.wheel_metadata import MOST, TAIL, NoMetadata, check, metadata_by_ranges, metadata_of

NAME = "Demo_Pack-1.0-py3-none-any.whl"
INFO = "Demo_Pack-1.0.dist-info"
TEXT = b"Metadata-Version: 2.1\nName: demo.pack\nVersion: 1.0\nRequires-Dist: other>=1\n\n" + "Grüße\n".encode() * 20
NOISE = random.Random(1).randbytes(300_000)
"""Content that does not become smaller."""
PATIENT = 8
"""Requests that no wheel may need more of."""

Member = tuple[str | zipfile.ZipInfo, bytes]


def wheel(*members: Member, compression: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def usual(*before: Member, text: bytes = TEXT, info: str = INFO) -> tuple[Member, ...]:
    """The members of a usual wheel, whose ``.dist-info`` is at its end."""
    return (*before, (f"{info}/METADATA", text), (f"{info}/WHEEL", b"Wheel-Version: 1.0\n"), (f"{info}/RECORD", b""))


@dataclass
class Remote:
    """An upstream that has ``content``, and what it was asked for."""

    content: bytes
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, span: str, size: int) -> Piece:
        unit, _, numbers = span.partition("=")
        first, _, last = numbers.partition("-")
        assert unit == "bytes"
        start = int(first) if first else max(len(self.content) - int(last), 0)
        stop = min(int(last) + 1, len(self.content)) if first else len(self.content)
        if start >= stop:
            raise RangesUnsupported("416")
        assert stop - start <= size
        self.asked.append((start, stop))
        return Piece(start=start, data=self.content[start:stop], total=len(self.content))

    @property
    def bytes(self) -> int:
        return sum(stop - start for start, stop in self.asked)


def read(content: bytes, *, requests: int, most: int, filename: str = NAME) -> bytes:
    """What is read by ranges, by exactly ``requests`` and at most so many bytes; a file that is here gives the same."""
    remote = Remote(content)
    found = metadata_by_ranges(remote, filename)
    assert metadata_of(io.BytesIO(content), filename) == found
    assert len(remote.asked) == requests
    assert remote.bytes <= most
    asked = sorted(remote.asked)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(asked)), "a byte was asked for twice"
    return found


def refused(content: bytes, filename: str = NAME) -> str:
    """Why a wheel is refused, by ranges as well as here."""
    remote = Remote(content)
    with pytest.raises(NoMetadata) as by_ranges:
        metadata_by_ranges(remote, filename)
    with pytest.raises(NoMetadata) as here:
        metadata_of(io.BytesIO(content), filename)
    assert str(by_ranges.value) == str(here.value)
    assert remote.bytes <= MOST
    assert len(remote.asked) <= PATIENT
    return str(here.value)


# How few bytes


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_usual_wheel_takes_its_tail_alone(compression: int) -> None:
    content = wheel(*usual(("demo/data.bin", NOISE)), compression=compression)
    assert read(content, requests=1, most=TAIL) == TEXT


def test_a_wheel_smaller_than_the_tail_takes_no_more_than_itself() -> None:
    content = wheel(*usual())
    assert read(content, requests=1, most=len(content)) == TEXT


def test_many_members_take_the_rest_of_the_directory() -> None:
    content = wheel(*usual(*((f"demo/module_{number}.py", b"") for number in range(1000))))
    directory = len(content) - content.index(b"PK\x01\x02")
    assert directory > 3 * TAIL
    assert read(content, requests=3, most=directory + 1024) == TEXT


def test_metadata_at_the_begin_takes_one_range_more() -> None:
    content = wheel(*reversed(usual(("demo/data.bin", NOISE))), ("z.bin", NOISE))
    assert read(content, requests=2, most=TAIL + 1024) == TEXT


def test_long_metadata_before_a_large_record_is_read_in_one_range() -> None:
    text = TEXT + NOISE[:50_000].hex().encode()
    members = (*usual(text=text)[:-1], (f"{INFO}/RECORD", NOISE[:TAIL]))
    packed = len(wheel((f"{INFO}/METADATA", text)))
    assert read(wheel(("demo/data.bin", NOISE), *members), requests=2, most=TAIL + packed + 1024) == text


def test_the_part_that_the_tail_has_is_not_asked_for_again() -> None:
    text = TEXT + NOISE[:TAIL].hex().encode()
    content = wheel(("demo/data.bin", NOISE), *usual(text=text))
    assert read(content, requests=2, most=len(content) - len(NOISE)) == text


def test_a_comment_is_understood() -> None:
    content = wheel(*usual(("demo/data.bin", NOISE)), comment=b"by hand " * 100)
    assert read(content, requests=2, most=TAIL + 2**16) == TEXT


def test_data_before_the_archive_is_understood() -> None:
    content = b"#!/bin/sh\n" * 10_000 + wheel(*usual(("demo/data.bin", NOISE)))
    assert read(content, requests=1, most=TAIL) == TEXT


@pytest.mark.parametrize("first", [True, False])
def test_zip64_is_understood(monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    members = usual(("demo/data.bin", NOISE))
    content = wheel(*(reversed(members) if first else members), ("z.bin", b"z"))
    assert b"PK\x06\x06" in content[-200:]
    assert read(content, requests=2 if first else 1, most=TAIL + 1024) == TEXT


def test_a_member_with_zip64_sizes_is_understood() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(f"{INFO}/METADATA", "w", force_zip64=True) as member:
            member.write(TEXT)
        archive.writestr("demo/data.bin", NOISE)
    assert read(buffer.getvalue(), requests=2, most=TAIL + 1024) == TEXT


def test_a_long_extra_field_in_front_of_the_content_takes_two_ranges_more() -> None:
    member = zipfile.ZipInfo(f"{INFO}/METADATA")
    member.extra = struct.pack("<HH", 0x9999, 5000) + bytes(5000)
    content = wheel((member, TEXT), ("demo/data.bin", NOISE))
    at = content.index(b"PK\x01\x02")
    # The directory's line says nothing of the field.
    line = bytearray(content[at:])
    assert struct.unpack_from("<H", line, 30) == (5004,)
    name = len(member.filename)
    line[30:32] = struct.pack("<H", 0)
    line[46 + name : 46 + name + 5004] = b""
    end = line.rindex(b"PK\x05\x06")
    line[end + 12 : end + 16] = struct.pack("<I", end)
    assert read(content[:at] + bytes(line), requests=4, most=TAIL + 8192) == TEXT


@pytest.mark.parametrize(
    ("filename", "info", "text"),
    [
        ("demo_pack-1.0+cu118-py3-none-any.whl", "demo_pack-1.0+cu118.dist-info", TEXT),
        ("demo_pack-1.0.0-py3-none-any.whl", INFO, TEXT),
        ("demo_pack-1.0-1-py3-none-any.whl", "demo.pack-1.0.dist-info", TEXT),
        ("demo_pack-1.0-py3-none-any.whl", "Demo_Pack-1.0.dist-info", TEXT.replace(b"\n", b"\r\n")),
        ("demo_pack-1.0-py3-none-any.whl", "demo_pack-v1.dist-info", TEXT.replace(b"1.0", b"v1.0.0")),
    ],
)
def test_names_and_versions_are_compared_in_their_normal_form(filename: str, info: str, text: bytes) -> None:
    assert read(wheel(*usual(info=info, text=text)), requests=1, most=TAIL, filename=filename) == text


def test_metadata_in_directories_below_is_not_that_of_the_wheel() -> None:
    below = (f"demo/vendor/{INFO}/METADATA", b"other")
    assert read(wheel(*usual(below)), requests=1, most=TAIL) == TEXT


# What is refused


def changed(content: bytes, offset: int, form: str, *values: int, member: str = "METADATA") -> bytes:
    """With other numbers in a member's line of the directory, which begins 46 bytes before the member's name."""
    made = bytearray(content)
    struct.pack_into(form, made, content.rindex(f"{INFO}/{member}".encode()) - 46 + offset, *values)
    return bytes(made)


def ended(content: bytes, form: str, *values: int) -> bytes:
    """With another size and place of the directory."""
    made = bytearray(content)
    struct.pack_into(form, made, content.rindex(b"PK\x05\x06") + 12, *values)
    return bytes(made)


GOOD = wheel(*usual(("demo/data.bin", NOISE)))
STORED = wheel(*usual(("demo/data.bin", NOISE)), compression=zipfile.ZIP_STORED)
LOCAL = GOOD.index(f"{INFO}/METADATA".encode()) - 30

HOSTILE: dict[str, tuple[bytes, str]] = {
    "no zip file": (NOISE, "not a zip file"),
    "nearly empty": (b"P", "not a zip file"),
    "truncated": (GOOD[:-1], "not a zip file"),
    "nothing in it": (wheel(), "0 .dist-info directories"),
    "no METADATA": (wheel((f"{INFO}/WHEEL", b"")), "0 members"),
    "two directories": (wheel(*usual(), *usual(info="demo_pack-2.0.dist-info")), "2 .dist-info directories"),
    "another project": (wheel(*usual(info="other-1.0.dist-info")), "of another project"),
    "another project in METADATA": (wheel(*usual(text=TEXT.replace(b"demo", b"evil"))), "of the project"),
    "another version in METADATA": (wheel(*usual(text=TEXT.replace(b"1.0", b"2.0"))), "of version 2.0"),
    "not UTF-8": (wheel(*usual(text=TEXT + b"\xff")), "not UTF-8"),
    "a null in its name": (GOOD.replace(b"/METADATA", b"/METADAT\0"), "0 members"),
    "a bomb": (wheel(*usual(text=bytes(5 << 20))), "larger than"),
    "a bomb that states less": (
        changed(wheel(*usual(text=bytes(5 << 20))), 24, "<I", 1000),
        "CRC",
    ),
    "more is stated than there is": (changed(GOOD, 24, "<I", 4000), "instead of 4000"),
    "terabytes are stated": (changed(GOOD, 20, "<I", 0xFFFFFFF0), "larger than"),
    "encrypted": (changed(GOOD, 8, "<H", 1), "encrypted"),
    "patched data": (changed(GOOD, 8, "<H", 0x20), "patched"),
    "bzip2": (wheel(*usual(), compression=zipfile.ZIP_BZIP2), "neither stored nor deflated"),
    "lzma": (wheel(*usual(), compression=zipfile.ZIP_LZMA), "neither stored nor deflated"),
    "an unknown compression": (changed(GOOD, 10, "<H", 93), "neither stored nor deflated"),
    "content that is not deflated": (changed(STORED, 10, "<H", 8), "invalid wheel"),
    "wrong checksum": (changed(GOOD, 16, "<I", 7), "CRC"),
    "an offset into the directory": (
        changed(GOOD, 42, "<I", GOOD.index(b"PK\x01\x02")),
        "overlaps",
    ),
    "an offset behind the end": (changed(GOOD, 42, "<I", len(GOOD) + 9), "overlaps"),
    "an offset of another member": (changed(GOOD, 42, "<I", 0), "overlaps"),
    "another member in the middle of it": (
        changed(GOOD, 42, "<I", LOCAL + 40, member="WHEEL"),
        "overlaps",
    ),
    "two members at its place": (changed(GOOD, 42, "<I", LOCAL, member="WHEEL"), "overlaps"),
    "another name at its place": (GOOD.replace(b"/METADATA", b"/METADATB", 1), "differ"),
    "a directory of gigabytes": (ended(GOOD, "<II", 0xFFFFFFF0, 0), "invalid wheel"),
    "a directory before the begin": (ended(GOOD, "<II", 100, len(GOOD)), "invalid wheel"),
    "several disks": (GOOD[:-22] + struct.pack("<IIQI", 0x07064B50, 3, 0, 9) + GOOD[-22:], "multiple disks"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_wheel_is_refused_in_ascii(name: str) -> None:
    content, why = HOSTILE[name]
    told = refused(content)
    assert why in told
    assert told.isascii()
    assert told.isprintable()


def test_a_member_that_is_there_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        content = wheel(*usual(), (f"{INFO}/METADATA", TEXT))
    assert "2 members" in refused(content)


def test_a_directory_of_many_mebibytes_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_metadata._Wheel, "directory", 100_000)
    content = wheel(*usual(*((f"demo/module_{number}.py", b"") for number in range(2000))))
    assert "list of members" in refused(content)


@pytest.mark.parametrize(
    "filename",
    ["demo.whl", "demo-1.0-py3-none-any.zip", "demo-x-py3-none-any.whl", "demo_pack-1.0.tar.gz", "", "ä.whl"],
)
def test_an_invalid_file_name_is_refused_before_anything_is_asked_for(filename: str) -> None:
    remote = Remote(GOOD)
    with pytest.raises(NoMetadata, match="file name") as told:
        metadata_by_ranges(remote, filename)
    assert not remote.asked
    assert str(told.value).isascii()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "0 fields Metadata-Version"),
        (b"Metadata-Version: 2.1\nName: demo-pack\n", "0 fields Version"),
        (b"Metadata-Version: 2.1\nVersion: 1.0\n", "0 fields Name"),
        (b"Name: demo-pack\nVersion: 1.0\n", "0 fields Metadata-Version"),
        (b"Metadata-Version: 2.1\n\nName: demo-pack\nVersion: 1.0\n", "0 fields Name"),
        (TEXT.replace(b"\n", b"\nName: evil\n", 1), "2 fields Name"),
        (TEXT.replace(b"1.0", b"\xc3\xa4"), "invalid version"),
        (b"<!DOCTYPE html><title>Please log in</title>", "0 fields"),
        (TEXT.replace(b"1.0", b"1" * 5000), "invalid version"),
        (TEXT.replace(b"1.0", b"1.0" + b"\n x" * 1_000_000), "invalid version"),
        (b"X: y\n" * 500_000 + TEXT, "0 fields"),
        (TEXT + bytes(4 << 20), "larger than"),
        (TEXT.decode().encode("utf-16"), "not UTF-8"),
    ],
)
def test_invalid_metadata_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(NoMetadata, match=why) as told:
        check(content, NAME)
    assert str(told.value).isascii()
    assert len(str(told.value)) <= 200


def test_long_metadata_is_valid() -> None:
    check(TEXT + b"x" * (3 << 20), NAME)


def test_metadata_of_a_source_distribution_is_checked_too() -> None:
    check(TEXT, "demo_pack-1.0.tar.gz")
    with pytest.raises(NoMetadata, match=r"of version 1\.0"):
        check(TEXT, "demo_pack-1.1.tar.gz")


# Upstreams


def test_an_error_of_the_upstream_is_raised_as_it_is() -> None:
    """Among them an OSError, which zipfile would take for a damaged file."""
    content = wheel(*reversed(usual(("demo/data.bin", NOISE))), ("z.bin", NOISE))
    for number in (0, 1):
        for error in (TimeoutError("slow"), RangesUnsupported("200"), ValueError("x"), EOFError("gone")):
            remote = Remote(content)

            def failing(
                span: str, size: int, *, at: int = number, error: Exception = error, to: Remote = remote
            ) -> Piece:
                if len(to.asked) == at:
                    raise error
                return to(span, size)

            with pytest.raises(type(error)) as raised:
                metadata_by_ranges(failing, NAME)
            assert raised.value is error


def test_an_upstream_may_have_no_ranges_from_the_end() -> None:
    for content in (GOOD, wheel(*usual())):
        remote = Remote(content)

        def strict(span: str, size: int, *, to: Remote = remote) -> Piece:
            if span.startswith("bytes=-"):
                raise RangesUnsupported("501")
            return to(span, size)

        assert metadata_by_ranges(strict, NAME) == TEXT
        assert len(remote.asked) == 2
        assert remote.bytes == min(TAIL, len(content)) + 1


@pytest.mark.parametrize(
    "other",
    [
        lambda piece: Piece(piece.start + 1, piece.data[1:], piece.total),
        lambda piece: Piece(piece.start, piece.data[:-1], piece.total),
        lambda piece: Piece(piece.start, piece.data, piece.total + 1),
        lambda piece: Piece(0, piece.data, piece.total),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_another_range_than_was_asked_for_is_no_range(other, number: int) -> None:  # type: ignore[no-untyped-def]
    remote = Remote(wheel(("z.bin", NOISE), *reversed(usual()), ("z.bin2", NOISE)))

    def lying(span: str, size: int) -> Piece:
        piece = remote(span, size)
        return other(piece) if len(remote.asked) == number + 1 else piece

    with pytest.raises(RangesUnsupported):
        metadata_by_ranges(lying, NAME)


# Anything


SMALL = wheel(*usual(("demo/data.bin", NOISE[:TAIL])), comment=b"comment")
FIRST = wheel(*reversed(usual(("demo/data.bin", NOISE[: 2 * TAIL]))), compression=zipfile.ZIP_STORED)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A wheel with other bytes, most of them in its directory; with a part cut out, or one that is there twice."""
    content = bytearray(draw(st.sampled_from([SMALL, FIRST])))
    places = st.integers(0, len(content) - 1) | st.integers(len(content) - 400, len(content) - 1)
    for place in draw(st.lists(places, max_size=6)):
        value = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff\xff\xff\xff", b"PK\x05\x06", b"\0"]))
        content[place : place + len(value)] = value
    if draw(st.booleans()):
        start, size = draw(places), draw(st.integers(0, 500))
        part = content[start : start + size]
        content[start : start + size] = b"" if draw(st.booleans()) else part * 2
    return bytes(content)


@given(damaged() | st.binary(max_size=200))
def test_damage_raises_nothing_else_and_costs_no_more(content: bytes) -> None:
    remote = Remote(content)
    found: list[bytes | None] = []
    for attempt in (lambda: metadata_by_ranges(remote, NAME), lambda: metadata_of(io.BytesIO(content), NAME)):
        try:
            found.append(attempt())
        except NoMetadata as refusal:
            assert str(refusal).isascii()
            found.append(None)
        except RangesUnsupported:
            assert not content
            return
    assert found[0] == found[1]
    assert remote.bytes <= min(MOST, len(content))
    assert len(remote.asked) <= PATIENT
