"""``deployer render`` of a cluster: one text, or a directory that can be made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deployer.commands import render
from deployer.errors import Refused, UsageError
from deployer.operations.rendered import HEADER
from deployer.ui.output import UI

TEAM = "extends: default\nengine: kubernetes\ncluster: {replicas: 2}\nkubernetes: {host: pypi.example.com}\n"


@pytest.fixture
def rendering(write: Callable[..., str]) -> Callable[..., object]:
    def run(form: str, output: Path | None = None, text: str = TEAM) -> object:
        options = render.Options(profile=write(text), name="devpi", format=form, output=output)
        return render.run(options, UI(quiet=True)).data

    return run


def test_one_file(rendering: Callable[..., dict[str, str]]) -> None:
    assert [one["kind"] for one in yaml.safe_load_all(rendering("kubernetes")["text"])][-1] == "Ingress"


@pytest.mark.parametrize("form", ["helm", "kustomize"])
def test_a_directory_is_made_again_with_what_is_wanted_now(
    rendering: Callable[..., dict[str, list[str]]], tmp_path: Path, form: str
) -> None:
    there = tmp_path / "made"
    files = rendering(form, there)["files"]
    assert files == sorted(str(path) for path in there.rglob("*") if path.is_file())
    assert all(Path(file).read_text().startswith(HEADER) for file in files)
    own = Path(files[-1]).parent / "own.yaml"
    own.write_text("mine\n")
    assert any("ingress" in file for file in files)
    again = rendering(form, there, TEAM.replace("host: pypi.example.com", ""))["files"]
    assert set(files) - set(again) == {file for file in files if "ingress" in file}
    assert sorted(str(path) for path in there.rglob("*") if path.is_file()) == sorted([*again, str(own)])
    assert own.read_text() == "mine\n"


def test_a_file_of_somebody_else_is_kept(rendering: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("mine\n")
    with pytest.raises(Refused, match=r"values\.yaml was not made by deployer render"):
        rendering("helm", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"values.yaml", "team.yaml"}
    with pytest.raises(UsageError, match="is not a directory"):
        rendering("helm", tmp_path / "values.yaml")


def test_output_goes_with_several_files(rendering: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several files"):
        rendering("kustomize")
    with pytest.raises(UsageError, match="one file"):
        rendering("kubernetes", tmp_path)


def test_a_cluster_is_no_single_server(rendering: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match="sh is of a single server"):
        rendering("sh")
