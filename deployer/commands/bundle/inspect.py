"""``deployer bundle inspect``: what is in a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Common
from deployer.ui.output import UI, Result

_SHOWN = ("index", "project", "filename", "sha256", "size")


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    file: Annotated[Path, Argument(metavar="FILE", help="Bundle: a tar file or a directory.")]
    verify: Annotated[
        Path | None, Option("--verify", metavar="KEY", help="Public SSH key that must have signed it.")
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Show what is in a bundle, and verify its checksums.

    It changes nothing. With --verify, one of the public keys in that file must have signed it.
    """
    from collections import Counter

    from deployer.diagnosis import size
    from deployer.operations.bundle_load import read

    opened = read(options.file, key=options.verify)
    with ui.working("verify", f"{len(opened.sums)} members"):
        for name, sha256 in opened.sums.items():
            opened.bundle.check(name, sha256)
    told = opened.manifest
    counts, total = Counter(file.index for file in told.files), sum(one.size for one in opened.bundle.members.values())
    lines = [
        f"created   {told.created} by deployer {told.deployer}{' (delta)' if told.delta else ''}",
        f"size      {size(total)}",
        f"signed    {('verified' if options.verify else 'yes, not verified') if opened.signed else 'no'}",
        f"image     {told.image.ref if told.image else 'none'}",
        f"wheels    {len(told.wheels)}",
        *(f"files     {name}: {counts[name]}" for name in sorted(told.indexes)),
    ]
    return Result(
        data={
            "path": str(options.file),
            "created": told.created,
            "deployer": told.deployer,
            "delta": told.delta,
            "bytes": total,
            "signed": opened.signed,
            "verified": options.verify is not None,
            "image": told.image.ref if told.image else None,
            "wheels": list(told.wheels),
            "files": [{key: getattr(one, key) for key in _SHOWN} for one in told.files],
        },
        text="\n".join(lines),
    )
