"""The image in a bundle: an engine gives it the names that are in it, so it may have no other than its own."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deployer.errors import VerificationError
from deployer.operations.bundle_load import require_only

NAME = "io.containerd.image.name"
REF = "localhost/deployer-devpi:6.20.3"


def image(path: Path, **files: Any) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, told in files.items():
            content = told if isinstance(told, bytes) else json.dumps(told).encode()
            info = tarfile.TarInfo(f"{name}.json" if name != "repositories" else name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_the_names_of_all_engines_are_understood(tmp_path: Path) -> None:
    """docker and podman (manifest.json, repositories), and an OCI layout, as nerdctl and newer dockers write it."""
    oci = {"manifests": [{"annotations": {NAME: REF}}, {"digest": "sha256:0"}]}
    for files in (
        {"manifest": [{"RepoTags": [REF]}], "repositories": {"localhost/deployer-devpi": {"6.20.3": "0"}}},
        {"manifest": [{"RepoTags": [REF]}], "index": oci},
        {"index": oci},
    ):
        require_only(image(tmp_path / "image.tar", **files), REF)
    require_only(image(tmp_path / "image.tar", manifest=[{"RepoTags": ["docker.io/a/b:1"]}]), "a/b:1")


@pytest.mark.parametrize(
    "files",
    [
        {"manifest": [{"RepoTags": ["python:3.13"]}]},
        {"manifest": [{"RepoTags": [REF, "python:3.13"]}]},
        {"manifest": [{"RepoTags": [REF]}, {"RepoTags": ["python:3.13"]}]},
        {"manifest": [{"RepoTags": [REF]}], "repositories": {"python": {"3.13": "0"}}},
        {
            "manifest": [{"RepoTags": [REF]}],
            "index": {"manifests": [{"annotations": {"io.containerd.image.name": "x"}}]},
        },
        {"manifest": [{"RepoTags": None}]},
        {"manifest": {}},
        {"manifest": b"{"},
        {"manifest": [1]},
        {},
    ],
)
def test_an_image_with_another_name_is_refused(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        require_only(image(tmp_path / "image.tar", **files), REF)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"no tar")
    with pytest.raises(VerificationError):
        require_only(tmp_path / "image.tar", REF)
