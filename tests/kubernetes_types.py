"""Whether an object has only fields that Kubernetes knows, each of its type: by the types of its Go client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_SCALARS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "numeric": (int, float),
    "boolean": (bool,),
    "untyped": (str, int, float, bool),
}
_GROUPS = {"": "core", "networking.k8s.io": "networking"}
_ANY = "__untyped_"


class Types:
    """``file``: ``applyconfigurations/internal/internal.go`` of k8s.io/client-go."""

    def __init__(self, file: Path) -> None:
        found = re.search(r"typed\.YAMLObject\(`(.*?)`\)", file.read_text(encoding="utf-8"), re.DOTALL)
        assert found is not None
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.named = {one["name"]: one for one in yaml.load(found[1], Loader=loader)["types"]}  # noqa: S506 - it is safe

    def problems(self, manifest: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with an object, a line each."""
        group, _, version = manifest["apiVersion"].rpartition("/")
        name = f"io.k8s.api.{_GROUPS.get(group, group)}.{version}.{manifest['kind']}"
        if name not in self.named:
            yield f"no type {name}"
        else:
            yield from self._checked({"namedType": name}, manifest, manifest["kind"])

    def _checked(self, kind: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
        if (name := kind.get("namedType")) is not None:
            kind = {} if name.startswith(_ANY) else self.named[name]
        if (scalar := kind.get("scalar")) is not None:
            fits = isinstance(value, _SCALARS[scalar]) and (
                scalar in ("boolean", "untyped") or not isinstance(value, bool)
            )
            if not fits:
                yield f"{path}: {value!r} is not {scalar}"
        elif (items := kind.get("list")) is not None:
            if not isinstance(value, list):
                yield f"{path}: not a list"
                return
            for number, one in enumerate(value):
                yield from self._checked(items["elementType"], one, f"{path}[{number}]")
        elif (fields := kind.get("map")) is not None:
            if not isinstance(value, dict):
                yield f"{path}: not an object"
                return
            known = {one["name"]: one["type"] for one in fields.get("fields", [])}
            for key, one in value.items():
                inner = known.get(key, fields.get("elementType"))
                if inner is None:
                    yield f"{path}.{key}: no such field"
                else:
                    yield from self._checked(inner, one, f"{path}.{key}")
