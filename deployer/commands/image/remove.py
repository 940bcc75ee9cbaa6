"""``deployer image remove``: remove deployer's own server images."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Remove deployer's own server images that no container uses.

    It removes all versions. Deployments and their data stay; `up` builds a missing image again.
    """
    from deployer.engines import detect
    from deployer.errors import UsageError
    from deployer.image import REPOSITORY
    from deployer.spec import LABEL_BUILD

    engine = detect(options.engine or "auto").engine
    if (images := engine.images) is None:
        raise UsageError(f"{engine.name} has no images", hint="name a container engine with --engine")
    removed: list[str] = []
    kept: list[str] = []
    for ref in images.tags(REPOSITORY):
        image = images.find(ref)
        if image is None or LABEL_BUILD not in image.labels:
            continue
        gone = images.remove(ref)
        (removed if gone else kept).append(ref)
        ui.step("image", f"{ref} {'removed' if gone else 'kept: a container uses it'} ({engine.name})")
    if not removed and not kept:
        ui.step("image", f"no image of deployer on {engine.name}: nothing to do")
    return Result(data={"engine": engine.name, "removed": removed, "kept": kept})
