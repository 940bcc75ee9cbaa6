"""``deployer image build``: build deployer's own server image."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deployer.commands import Overrides, overrides
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Overrides):
    pass


def run(options: Options, ui: UI) -> Result:
    """Build deployer's own server image.

    The build uses the index, the CA bundle and the proxy of this host's pip.
    """
    from deployer.engines import detect
    from deployer.errors import UsageError
    from deployer.image import DEFAULT_BASE, build_digest, reference
    from deployer.operations.images import build_own
    from deployer.operations.plugins import lock_of
    from deployer.plan import ImagePlan
    from deployer.profile.load import load
    from deployer.spec import LABEL_BASE

    loaded = load(options.profile, overrides=overrides(options))
    profile = loaded.profile
    engine = detect(profile.engine).engine
    if (images := engine.images) is None:
        raise UsageError(f"{engine.name} has no images", hint="name a container engine with --engine")
    base, major, plugins = profile.image.base, profile.server.version, lock_of(loaded)
    plan = ImagePlan(
        ref=reference(major, plugins),
        own=True,
        base=base,
        build=build_digest(base, major, plugins),
        plugins=plugins,
        major=major,
        proxy=profile.network.proxy,
    )
    with ui.working("image", plan.ref) as progress:
        former = images.find(plan.ref)
        image = build_own(plan, images, former, env=dict(os.environ), on_line=progress)
    ui.step("image", f"{plan.ref} {image.id[:19]} ({engine.name})")
    found = image.labels.get(LABEL_BASE, "")
    ui.step("base", f"{base or DEFAULT_BASE} {found}".strip())
    if former is not None and former.id != image.id:
        ui.note("running servers keep the previous image until: deployer up")
    return Result(
        data={"ref": plan.ref, "id": image.id, "engine": engine.name, "build": plan.build, "base": found}, text=plan.ref
    )
