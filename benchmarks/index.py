"""A package index on disk, made here: wheels of realistic sizes that need each other, on pages as long as real ones.

Nothing is downloaded. The same numbers give the same bytes on every run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.upstream import JSON_TYPE, Distribution, make_wheel

GROUPS = ("small", "medium", "large")
"""Each group needs nothing of another one; its first project needs, in three or four steps, all the others."""
_MODULE = b"def answer(number: int) -> int:\n    return number * 42\n" * 60
_BRANCHES = 3
_SHARES = (0.42, 0.2, 0.1, 0.06, 0.04, 0.03, 0.02, 0.02, 0.01, 0.01)
"""Of all bytes, what the largest wheels have; the rest share what is left."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is: projects of each group, bytes of all wheels, links of the longest page."""

    small: int
    medium: int
    large: int
    megabytes: float
    links: int
    even: bool = False
    """Whether all wheels are of one size; else a few have most of the bytes, as in a real installation."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """What was made in ``root``: ``simple/NAME/index.html`` and ``index.json``, ``files/``."""

    root: Path
    wheels: dict[str, Distribution]
    groups: dict[str, tuple[str, ...]]
    longest: str
    """The project with the longest page and the largest wheel."""
    usual: str
    """A project whose page is of the usual length."""

    @property
    def files(self) -> Path:
        return self.root / "files"

    def wanted(self, *groups: str) -> list[str]:
        """What to ask an installer for, so that it gets every wheel of ``groups``."""
        return [self.groups[group][0] for group in groups]

    def count(self, *groups: str) -> int:
        return sum(len(self.groups[group]) for group in groups)

    def megabytes(self, *groups: str) -> float:
        return sum(len(self.wheels[name].content) for group in groups for name in self.groups[group]) / 1e6


def make(root: Path, size: Size) -> Index:
    """Write an index of ``size`` into ``root``, which must not be there yet."""
    groups = {group: tuple(_names(group, getattr(size, group))) for group in GROUPS}
    largest_first = _interleaved(groups)
    sizes = dict(zip(largest_first, _sizes(len(largest_first), int(size.megabytes * 1e6), size.even), strict=True))
    needs = {name: need for names in groups.values() for name, need in _needs(names).items()}
    wheels = {name: _wheel(name, sizes[name], needs[name]) for name in largest_first}
    longest, usual = largest_first[0], groups["small"][-1]
    for name, wheel in wheels.items():
        chance = random.Random(f"links of {name}")  # noqa: S311 - the same on every run is what is wanted
        links = size.links if name == longest else min(int(chance.lognormvariate(4.6, 0.9)), size.links // 4) + 5
        _write(root, wheel, links if name != usual else min(100, size.links))
    _write_list(root)
    return Index(root=root, wheels=wheels, groups=groups, longest=longest, usual=usual)


def add(index: Index, name: str, *, size: int, links: int) -> Distribution:
    """One more project, for which no other has a need: a wheel of ``size`` bytes on a page of ``links`` links."""
    wheel = _wheel(name, size, ())
    _write(index.root, wheel, links)
    _write_list(index.root)
    return wheel


def add_all(index: Index, names: Iterable[str], *, size: int, links: int) -> None:
    """The same for many projects."""
    for name in names:
        _write(index.root, _wheel(name, size, ()), links)
    _write_list(index.root)


def without_metadata(index: Index, root: Path) -> Index:
    """The same files and pages in ``root``, but no core metadata (PEP 658), and no page that promises any."""
    (root / "files").mkdir(parents=True)
    for wheel in index.files.glob("*.whl"):
        (root / "files" / wheel.name).hardlink_to(wheel)
    for page in (index.root / "simple").glob("**/index.json"):
        listed = json.loads(page.read_bytes())
        for file in listed.get("files", ()):
            del file["core-metadata"]
        html = re.sub(r' data-core-metadata="[^"]*"', "", page.with_suffix(".html").read_text(encoding="utf-8"))
        _write_both(root / page.parent.relative_to(index.root), html, listed)
    return replace(index, root=root)


def _names(group: str, count: int) -> Iterator[str]:
    return (f"bench-{group}-{number:02d}" for number in range(count))


def _interleaved(groups: dict[str, tuple[str, ...]]) -> list[str]:
    """All names, the medium group first, so that it has the largest wheel, and each group some large ones."""
    order = sorted(groups, key=["medium", "large", "small"].index)
    rows = max(len(names) for names in groups.values())
    return [groups[group][row] for row in range(rows) for group in order if row < len(groups[group])]


def _sizes(count: int, total: int, even: bool) -> list[int]:
    if even:
        return [total // count] * count
    large = [int(total * share) for share in _SHARES[: max(1, count - 1)]]
    rest = count - len(large)
    return large + [max(2000, (total - sum(large)) // max(1, rest))] * rest


def _needs(names: Sequence[str]) -> dict[str, list[str]]:
    needs: dict[str, list[str]] = {name: [] for name in names}
    for number, name in enumerate(names[1:], start=1):
        needs[names[(number - 1) // _BRANCHES]].append(f"{name}>=1.0")
    return needs


def _wheel(name: str, size: int, requires: Sequence[str]) -> Distribution:
    """A wheel of about ``size`` bytes: modules like any, and one file that can't be compressed."""
    module = name.replace("-", "_")
    count = min(40, size // (2 * len(_MODULE)))
    files: dict[str, str | bytes] = {f"{module}/part{number}.py": _MODULE for number in range(count)}
    chance = random.Random(name)  # noqa: S311 - the same on every run is what is wanted
    files[f"{module}/data.bin"] = chance.randbytes(max(1, size - count * len(_MODULE)))
    files[f"{module}/__init__.py"] = ""
    description = "What this package is good for, and how it is used.\n" * int(chance.lognormvariate(4.6, 0.8))
    return make_wheel(name, "2.0.0", files=files, requires=requires, description=description)


def _metadata(wheel: Distribution) -> bytes:
    import io

    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA")))


def _write(root: Path, wheel: Distribution, links: int) -> None:
    """The wheel, its metadata, and its page."""
    (root / "files").mkdir(parents=True, exist_ok=True)
    (root / "files" / wheel.filename).write_bytes(wheel.content)
    (root / "files" / f"{wheel.filename}.metadata").write_bytes(_metadata(wheel))
    _write_page(root / "simple" / wheel.project, wheel, links)


def _write_list(root: Path) -> None:
    """The page of all projects that have a page."""
    names = sorted(page.parent.name for page in (root / "simple").glob("*/index.json"))
    listed = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names]}
    _write_both(root / "simple", _html("".join(f'<a href="{name}/">{name}</a>\n' for name in names)), listed)


def _write_page(directory: Path, wheel: Distribution, links: int) -> None:
    files = [
        *_older(wheel.project, links - 1),
        _link(wheel.filename, wheel.sha256, len(wheel.content), _metadata(wheel)),
    ]
    versions = list(dict.fromkeys(file["filename"].split("-")[1].removesuffix(".tar.gz") for file in files))
    page = {"meta": {"api-version": "1.1"}, "name": wheel.project, "versions": versions, "files": files}
    anchors = "".join(
        f'<a href="{file["url"]}#sha256={file["hashes"]["sha256"]}" data-requires-python="&gt;=3.9"'
        + (f' data-core-metadata="sha256={file["core-metadata"]["sha256"]}"' if file["core-metadata"] else "")
        + f">{file['filename']}</a><br />\n"
        for file in files
    )
    _write_both(directory, _html(anchors), page)


def _html(anchors: str) -> str:
    return f"<!DOCTYPE html>\n<html><body>\n{anchors}</body></html>\n"


def _older(project: str, count: int) -> Iterator[dict]:  # type: ignore[type-arg]
    """Links to what nobody downloads: the earlier releases, each an sdist and wheels for many platforms."""
    stem = project.replace("-", "_")
    pythons = ("cp39-cp39", "cp310-cp310", "cp311-cp311", "cp312-cp312")
    platforms = ("manylinux_2_17_x86_64.manylinux2014_x86_64", "macosx_11_0_arm64", "win_amd64")
    tails = [".tar.gz", *(f"-{python}-{platform}.whl" for python in pythons for platform in platforms)]
    for number in range(count):
        release, tail = divmod(number, len(tails))
        filename = f"{stem}-1.{release // 10}.{release % 10}{tails[tail]}"
        digest = hashlib.sha256(filename.encode()).hexdigest()
        yield _link(filename, digest, 100_000 + number, b"" if tails[tail] == ".tar.gz" else filename.encode())


def _link(filename: str, digest: str, size: int, metadata: bytes) -> dict:  # type: ignore[type-arg]
    return {
        "filename": filename,
        "url": f"../../files/{filename}",
        "hashes": {"sha256": digest},
        "size": size,
        "requires-python": ">=3.9",
        "upload-time": "2024-05-06T07:08:09.101112Z",
        "yanked": False,
        "core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()} if metadata else False,
    }


def _write_both(directory: Path, html: str, page: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"html": html, "json": json.dumps(page)}
    for kind, text in texts.items():
        (directory / f"index.{kind}").write_text(text, encoding="utf-8")
        (directory / f"index.{kind}.gz").write_bytes(gzip.compress(text.encode(), 6, mtime=0))


__all__ = ["GROUPS", "JSON_TYPE", "Index", "Size", "add", "make", "without_metadata"]
