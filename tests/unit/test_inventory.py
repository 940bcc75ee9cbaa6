"""The inventory: what happens is in it, what the disk has is found again, and a damaged file is begun anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("devpi_server")

from deployer.protocol import InventoryRequest, Kind
from deployer.server.inventory import reading
from deployer.server.inventory.comparison import Comparison, Places
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.items import BLOCK, item_of
from deployer.server.inventory.watching import Uses

URL = "https://packages.example.com/simple/"
WHEEL = "+f/abc/0123456789012/demo_dep-1.0-py3-none-any.whl"
SDIST = "+f/def/0123456789012/demo-dep-1.1.tar.gz"


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path / "inventory.sqlite")


def stored(inventory: Inventory, path: str, *, index: str = "root/pypi", kind: Kind = Kind.FILE, **known: Any) -> None:
    fields: dict[str, Any] = {"size": 5000, "first": 100.0, "last": 100.0, "origin": URL}
    inventory.keep(item_of(kind, index, path, **(fields | known)))


def line(path: str, **other: object) -> dict[str, Any]:
    told = {"time": "2026-01-02T03:04:05+00:00", "method": "GET", "status": 200, "path": path}
    return told | other


def test_files_are_listed_by_project_with_what_they_take(inventory: Inventory) -> None:
    stored(inventory, WHEEL)
    stored(inventory, SDIST, last=200.0)
    stored(inventory, "demo-dep", kind=Kind.PAGE, project="demo-dep", size=100)
    stored(inventory, f"{WHEEL}.metadata", kind=Kind.COMPANION, size=100)
    stored(inventory, "+f/012/0123456789012/own-1-py3-none-any.whl", index="root/dev", kind=Kind.UPLOAD, origin="")
    own, demo = reading.projects(inventory)
    assert (demo["index"], demo["project"], demo["versions"], demo["files"]) == ("root/pypi", "demo-dep", 2, 2)
    assert demo["bytes"] == 2 * 4 * BLOCK + BLOCK + 3 * BLOCK
    assert (demo["first"], demo["last"]) == ("1970-01-01T00:01:40+00:00", "1970-01-01T00:03:20+00:00")
    assert demo["origin"] == URL
    assert (own["project"], own["uploads"], own["origin"]) == ("own", 1, "")
    assert reading.totals(inventory) == {
        "companion": {"number": 1, "bytes": 3 * BLOCK},
        "file": {"number": 2, "bytes": 8 * BLOCK},
        "page": {"number": 1, "bytes": BLOCK},
        "upload": {"number": 1, "bytes": 4 * BLOCK},
    }
    files = reading.of_project(inventory, "demo-dep")
    assert [(file["kind"], file["version"]) for file in files] == [
        ("companion", "1.0"),
        ("file", "1.0"),
        ("file", "1.1"),
        ("page", ""),
    ]


@pytest.mark.parametrize("search", ["demo", "Demo_Dep", "o.d"])
def test_projects_are_found_by_a_part_of_their_name(inventory: Inventory, search: str) -> None:
    stored(inventory, WHEEL)
    stored(inventory, "+f/012/0123456789012/other-1-py3-none-any.whl")
    assert [one["project"] for one in reading.projects(inventory, search=search)] == ["demo-dep"]


def test_uses_come_from_the_access_log(inventory: Inventory) -> None:
    stored(inventory, WHEEL)
    stored(inventory, "demo-dep", kind=Kind.PAGE, project="demo-dep")
    uses = Uses(inventory)
    uses.line(line(f"/root/pypi/{WHEEL}"))
    uses.line(line(f"/root/pypi/{WHEEL}", status=206))
    uses.line(line(f"/root/pypi/{WHEEL}", status=404))
    uses.line(line(f"/root/pypi/{WHEEL}", method="HEAD"))
    uses.line(line("/root/pypi/+canonical/packages/aa/bb/cc/demo_dep-1.0-py3-none-any.whl"))
    uses.line(line("/root/dev/+simple/demo-dep/", time="2026-01-02T03:04:06+00:00"))
    uses.line(line("/root/dev/+simple/unknown/"))
    uses.line(line("/"))
    file, page = reading.of_project(inventory, "demo-dep")
    assert (file["uses"], file["last"]) == (3, "2026-01-02T03:04:05+00:00")
    assert (page["uses"], page["last"]) == (0, "2026-01-02T03:04:06+00:00")


def test_what_is_kept_again_keeps_its_first_day_and_its_uses(inventory: Inventory) -> None:
    stored(inventory, WHEEL)
    Uses(inventory).line(line(f"/root/pypi/{WHEEL}"))
    inventory.flush()
    stored(inventory, WHEEL, size=9000, first=300.0, last=300.0)
    (file,) = reading.of_project(inventory, "demo-dep")
    assert (file["size"], file["uses"], file["first"]) == (9000, 1, "1970-01-01T00:01:40+00:00")
    assert reading.totals(inventory)["file"] == {"number": 1, "bytes": 5 * BLOCK}


def test_a_request_is_answered_in_parts(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        stored(inventory, f"+f/abc/0123456789012/{name}-1-py3-none-any.whl")
    monkeypatch.setattr(reading, "MOST", 2)
    names, after = [], ""
    for _ in range(3):
        found = reading.answer(inventory, InventoryRequest(after=after))
        names.append([one["project"] for one in found["projects"]])
        after = found["after"]
        if not after:
            break
    assert names == [["a", "b"], ["c"]]
    found = reading.answer(inventory, InventoryRequest(project="b"))
    assert [file["path"] for file in found["files"]] == ["+f/abc/0123456789012/b-1-py3-none-any.whl"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "inventory.sqlite"
    path.write_bytes(content)
    inventory = Inventory(path)
    stored(inventory, WHEEL)
    assert len(reading.projects(inventory)) == 1


def test_it_is_known_after_a_restart(tmp_path: Path) -> None:
    first = Inventory(tmp_path / "inventory.sqlite")
    stored(first, WHEEL)
    first.close()
    assert len(reading.projects(Inventory(tmp_path / "inventory.sqlite"))) == 1


class Disk:
    """A server directory, with the indexes ``root/pypi``, a mirror, and ``root/dev``."""

    def __init__(self, root: Path) -> None:
        self.places = Places(root / "+files", root / "companions", root / "upstream")

    def write(self, root: Path, path: str, size: int = 10) -> Path:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bytes(size))
        return root / path

    def compared(self, inventory: Inventory) -> list[tuple[str, str, str]]:
        urls = {"root/pypi": URL}
        Comparison(inventory, self.places, urls.get).run()
        rows = inventory.read("select kind, idx, path from items order by kind, idx, path")
        return [(kind, index, path) for kind, index, path in rows]


def test_what_the_disk_has_is_found(tmp_path: Path, inventory: Inventory) -> None:
    disk = Disk(tmp_path)
    disk.write(disk.places.files, f"root/pypi/{WHEEL}")
    disk.write(disk.places.files, "root/pypi/+e/https_files_example_com/old-1.0.tar.gz")
    disk.write(disk.places.files, f"root/dev/{SDIST}")
    disk.write(disk.places.companions, f"root/pypi/{WHEEL}.metadata")
    disk.write(disk.places.pages, "root/pypi/demo-dep")
    disk.write(disk.places.pages, "root/pypi/.url")
    expected = [
        ("companion", "root/pypi", f"{WHEEL}.metadata"),
        ("file", "root/pypi", "+e/https_files_example_com/old-1.0.tar.gz"),
        ("file", "root/pypi", WHEEL),
        ("page", "root/pypi", "demo-dep"),
        ("upload", "root/dev", SDIST),
    ]
    assert disk.compared(inventory) == expected
    assert disk.compared(inventory) == expected
    projects = {(one["index"], one["project"]) for one in reading.projects(inventory)}
    assert projects == {("root/pypi", "demo-dep"), ("root/pypi", "old"), ("root/dev", "demo-dep")}


def test_what_the_disk_has_no_more_is_dropped_and_another_kind_is_corrected(
    tmp_path: Path, inventory: Inventory
) -> None:
    disk = Disk(tmp_path)
    stored(inventory, WHEEL)
    stored(inventory, "gone", kind=Kind.PAGE, project="gone")
    stored(inventory, f"{WHEEL}.metadata", kind=Kind.COMPANION)
    stored(inventory, WHEEL, index="root/removed")
    stored(inventory, SDIST, kind=Kind.UPLOAD, origin="")
    disk.write(disk.places.files, f"root/pypi/{SDIST}", 5000)
    assert disk.compared(inventory) == [("file", "root/pypi", SDIST)]
    assert reading.totals(inventory)["file"] == {"number": 1, "bytes": 4 * BLOCK}
    assert {of["number"] for kind, of in reading.totals(inventory).items() if kind != "file"} == {0}
