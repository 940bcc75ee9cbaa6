"""Members as pods of a Kubernetes: their manifests, and the place that applies them by kubectl."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployer.clusters.kubernetes.place import Kubernetes
    from deployer.profile.models import Profile


def open_kubernetes(name: str, profile: Profile) -> Kubernetes:
    """The place of the cluster ``name``. Raises ProfileError where context or namespace would have to be guessed."""
    from deployer.clusters.kubernetes.kubectl import Kubectl, choose
    from deployer.clusters.kubernetes.manifests.words import outside_url
    from deployer.clusters.kubernetes.place import Kubernetes
    from deployer.host.runner import Runner

    settings, runner = profile.kubernetes, Runner()
    target = choose(settings.context, settings.namespace, runner)
    return Kubernetes(name, Kubectl(target, runner), secret=settings.secret, address=outside_url(profile))
