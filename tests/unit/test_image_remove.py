"""``deployer image remove``: only our own images, by name, and none that a container was made from."""

from __future__ import annotations

import io

import pytest

from deployer import engines
from deployer.commands.image import remove as verb
from deployer.engines import Detection
from deployer.errors import UsageError
from deployer.image import REPOSITORY
from deployer.spec import LABEL_BUILD, EngineName, Image
from deployer.ui.output import UI
from tests.fake_engine import FakeEngine
from tests.unit.test_plan import make


def remove(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, object], str]:
    monkeypatch.setattr(engines, "detect", lambda wanted: Detection(engine=engine, info=engine.probe()))
    told = io.StringIO()
    return dict(verb.run(verb.Options(), UI(err=told)).data), told.getvalue()


def ours(ref: str, number: int) -> Image:
    return Image(id=f"sha256:{number}", ref=ref, names=(ref,), labels={LABEL_BUILD: "b"})


def test_ours_go_and_what_is_needed_or_not_ours_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(image_ref=f"{REPOSITORY}:6.20.3")
    stock = {ref: ours(ref, n) for n, ref in enumerate((f"{REPOSITORY}:6.20.2", f"{REPOSITORY}:6.20.3"))}
    strangers = {f"{REPOSITORY}:mine": Image(id="sha256:8", ref=""), "localhost/other:1": ours("localhost/other:1", 9)}
    engine = FakeEngine(stock=stock | strangers)
    engine.run(plan.spec)
    data, told = remove(engine, monkeypatch)
    assert (data["removed"], data["kept"]) == ([f"{REPOSITORY}:6.20.2"], [f"{REPOSITORY}:6.20.3"])
    assert engine.stock.keys() == {f"{REPOSITORY}:6.20.3", *strangers}
    assert "kept: a container uses it" in told

    engine.remove(plan.name)
    assert remove(engine, monkeypatch)[0]["removed"] == [f"{REPOSITORY}:6.20.3"]
    assert "nothing to do" in remove(engine, monkeypatch)[1]


def test_a_process_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        remove(FakeEngine(name=EngineName.PROCESS), monkeypatch)
