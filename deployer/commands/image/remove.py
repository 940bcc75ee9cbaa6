"""``deployer image remove``: give back the room that our own images take."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Remove our server images that no container was made from.

    Those of every version. Deployments and their data stay; an `up` that needs an image builds it again.
    """
    from deployer.engines import detect
    from deployer.errors import UsageError
    from deployer.image import REPOSITORY
    from deployer.spec import LABEL_BUILD

    engine = detect(options.engine or "auto").engine
    if (images := engine.images) is None:
        raise UsageError(f"{engine.name} has no images", hint="name a container engine: --engine ENGINE")
    removed: list[str] = []
    kept: list[str] = []
    for ref in images.tags(REPOSITORY):
        image = images.find(ref)
        if image is None or LABEL_BUILD not in image.labels:
            continue
        gone = images.remove(ref)
        (removed if gone else kept).append(ref)
        ui.step("image", f"{ref} {'removed' if gone else 'stays: a container was made from it'} ({engine.name})")
    if not removed and not kept:
        ui.step("image", f"{engine.name} has none of ours: nothing to do")
    return Result(data={"engine": engine.name, "removed": removed, "kept": kept})
