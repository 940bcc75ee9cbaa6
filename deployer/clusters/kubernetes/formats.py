"""The files that other tools apply: manifests, a directory for kustomize, a chart for Helm. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.manifests import manifests
from deployer.clusters.kubernetes.manifests.names import MEMBERS_SECRET, ROOT_PASSWORD, Manifest
from deployer.clusters.kubernetes.manifests.words import literal, outside_url
from deployer.container_files import commented

_ACTION = "{{"


@dataclass(frozen=True)
class Expression:
    """A value that Helm fills in. ``text``: an expression of its template language, without braces."""

    text: str


def secret_by_hand(wanted: Wanted) -> tuple[str, ...]:
    """How the Secret is made, which is in no file. Each line is a step."""
    name = wanted.profile.kubernetes.secret or wanted.name
    return (
        f"Before: the Secret {name} with the keys {MEMBERS_SECRET} and {ROOT_PASSWORD}, of 32 characters or more:",
        "  umask 077; openssl rand -hex 32 >members-secret; openssl rand -hex 32 >root-password",
        f"  kubectl create secret generic {name} --from-file={MEMBERS_SECRET} --from-file={ROOT_PASSWORD}",
        "Users and indexes are made by: deployer up, with the same profile.",
    )


def kubernetes(wanted: Wanted) -> str:
    """All manifests in one YAML file."""
    return "---\n".join(_yaml(_placed(one, wanted)) for one in manifests(wanted))


def kustomize(wanted: Wanted) -> dict[str, str]:
    """The files of a base for kustomize, by their names."""
    files = {_file(one): _yaml(one) for one in manifests(wanted)}
    settings = wanted.profile.kubernetes
    base = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **({"namespace": settings.namespace} if settings.namespace else {}),
        "resources": list(files),
    }
    return {"kustomization.yaml": commented(secret_by_hand(wanted), _yaml(base)), **files}


def helm(wanted: Wanted) -> dict[str, str]:
    """The files of a chart, by their paths in it."""
    values = _values(wanted)
    chart = {
        "apiVersion": "v2",
        "name": wanted.name,
        "description": "A Python package index: devpi-server with its replicas.",
        "type": "application",
        "version": "1.0.0",
        "kubeVersion": ">=1.28.0-0",
    }
    files = {f"templates/{_file(one)}": _template(_with_values(one, wanted)) for one in manifests(wanted)}
    notes = "\n".join(line.replace(_ACTION, '{{"{{"}}') for line in secret_by_hand(wanted))
    return {
        "Chart.yaml": _yaml(chart),
        "values.yaml": commented(secret_by_hand(wanted), _yaml(values)),
        "templates/NOTES.txt": notes + "\n",
        **files,
    }


def _values(wanted: Wanted) -> dict[str, Any]:
    settings = wanted.profile.kubernetes
    found = {one["kind"]: one for one in manifests(wanted)}
    spec = found["StatefulSet"]["spec"]
    server, claim = spec["template"]["spec"]["containers"][0], spec["volumeClaimTemplates"][0]["spec"]
    return {
        "image": server["image"],
        "pullSecrets": [{"name": settings.pull_secret}] if settings.pull_secret else [],
        "replicas": wanted.profile.cluster.replicas,
        "primary": wanted.identity.primary,
        "uuid": wanted.identity.uuid,
        "secret": settings.secret or wanted.name,
        "storage": {"size": claim["resources"]["requests"]["storage"], "className": settings.storage_class or None},
        "resources": server["resources"],
        **(
            {
                "host": settings.host,
                "tlsSecret": settings.tls_secret or None,
                "ingressClassName": settings.ingress_class or None,
            }
            if settings.host
            else {}
        ),
    }


Change = tuple[Sequence[str | int], str]
"""A path in an object, and the expression that is put there."""

_POD = ("spec", "template", "spec")
_OF_KIND: Mapping[str, tuple[Change, ...]] = {
    "StatefulSet": (
        (("spec", "replicas"), "add1 (int .Values.replicas)"),
        (("spec", "updateStrategy", "type"), 'ternary "RollingUpdate" "OnDelete" (eq (int .Values.primary) 0)'),
        (
            ("spec", "template", "metadata", "annotations", "io.devpi.deployer/primary"),
            "toString (int .Values.primary)",
        ),
        ((*_POD, "imagePullSecrets"), ".Values.pullSecrets"),
        ((*_POD, "initContainers", 0, "image"), ".Values.image"),
        ((*_POD, "initContainers", 0, "resources"), ".Values.resources"),
        ((*_POD, "containers", 0, "image"), ".Values.image"),
        ((*_POD, "containers", 0, "resources"), ".Values.resources"),
        ((*_POD, "volumes", 2, "secret", "secretName"), ".Values.secret"),
        (("spec", "volumeClaimTemplates", 0, "spec", "storageClassName"), ".Values.storage.className"),
        (("spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage"), ".Values.storage.size"),
    ),
    "ConfigMap": (
        (("data", "primary"), "toString (int .Values.primary)"),
        (("data", "uuid"), "toString .Values.uuid"),
    ),
    "Ingress": (
        (("spec", "ingressClassName"), ".Values.ingressClassName"),
        (("spec", "tls", 0, "hosts", 0), ".Values.host"),
        (("spec", "tls", 0, "secretName"), ".Values.tlsSecret"),
        (("spec", "rules", 0, "host"), ".Values.host"),
    ),
}


def _with_values(manifest: Manifest, wanted: Wanted) -> Any:
    """A manifest with expressions where the values of the chart belong."""
    made: Any = deepcopy(manifest)
    for path, text in _OF_KIND.get(manifest["kind"], ()):
        inner = made
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = Expression(text)
    host = wanted.profile.kubernetes.host
    if manifest["kind"] == "StatefulSet" and host and not wanted.profile.network.outside_url:
        server = made["spec"]["template"]["spec"]["containers"][0]
        told = literal(outside_url(wanted.profile))
        server["args"] = [
            Expression('printf "https://%s" .Values.host') if word == told else word for word in server["args"]
        ]
    return made


def _template(manifest: Any) -> str:
    """A template of Helm in JSON, which is YAML, too. Braces of values are no actions of its language."""

    def scalar(value: object) -> str:
        return json.dumps(value).replace(_ACTION, '{{"{{"}}')

    return _json(manifest, scalar, "") + "\n"


def _json(value: Any, scalar: Callable[[object], str], indent: str) -> str:
    inner = indent + "  "
    match value:
        case Expression(text):
            return f"{{{{ {text} | toJson }}}}"
        case dict() if value:
            items = [f"{inner}{scalar(key)}: {_json(one, scalar, inner)}" for key, one in value.items()]
            return "{\n" + ",\n".join(items) + f"\n{indent}}}"
        case list() if value:
            return "[\n" + ",\n".join(inner + _json(one, scalar, inner) for one in value) + f"\n{indent}]"
        case _:
            return scalar(value)


def _placed(manifest: Manifest, wanted: Wanted) -> Manifest:
    """With its namespace, if the profile names it."""
    namespace = wanted.profile.kubernetes.namespace
    if not namespace:
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def _file(manifest: Manifest) -> str:
    return f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"


def _yaml(value: object) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=False)
