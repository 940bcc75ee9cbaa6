"""Our image at the place of a cluster that does not pull it from a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.clusters.base import Cluster, PlaceName
from deployer.image import build_digest, reference
from deployer.operations.images import have_image
from deployer.plan import ImagePlan

if TYPE_CHECKING:
    from deployer.profile.models import Profile
    from deployer.ui.output import UI


def build_of(profile: Profile) -> str:
    """The digest of what our image is built from for this profile; empty for one of a registry."""
    return "" if profile.cluster.image else build_digest(profile.image.base, profile.server.version)


def have_own_image(cluster: Cluster, profile: Profile, ui: UI) -> None:
    """Build our image at the manager of a swarm, unless ``cluster.image`` names one. Raises ImageUnavailable."""
    if cluster.place is not PlaceName.SWARM or profile.cluster.image:
        return
    from deployer.engines.argv import ArgvEngine
    from deployer.engines.dialects import DOCKER
    from deployer.host.runner import Runner

    context, major = profile.swarm.context, profile.server.version
    # DOCKER_HOST would win over the context.
    images = ArgvEngine(
        DOCKER, runner=Runner({"DOCKER_CONTEXT": context, "DOCKER_HOST": ""} if context else None)
    ).images
    plan = ImagePlan(
        ref=reference(major),
        own=True,
        base=profile.image.base,
        build=build_of(profile),
        major=major,
        proxy=profile.network.proxy,
    )
    have_image(plan, images.find(plan.ref), images, ui)
