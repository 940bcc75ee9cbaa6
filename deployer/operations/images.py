"""Images: get the image of a plan, build our own, remove images that a newer build replaced."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deployer.engines.base import Images
from deployer.errors import EngineError, ImageUnavailable, Refused
from deployer.host.background import meanwhile
from deployer.host.gather import proxies
from deployer.plan import ImagePlan
from deployer.spec import LABEL_BUILD, Image

if TYPE_CHECKING:
    from deployer.ui.output import UI


def fits(plan: ImagePlan, image: Image) -> bool:
    """Whether ``image`` is the planned one: our own image by its build label, another one by its name alone."""
    return not plan.own or image.labels.get(LABEL_BUILD) == plan.build


def have_image(plan: ImagePlan, existing: Image | None, images: Images, ui: UI) -> Image:
    """Get the image of the plan and show how. ``existing``: the present image of that name.

    Raises ImageUnavailable, Refused.
    """
    meanwhile(lambda: import_module("deployer.render"))  # imported while the engine answers
    started = time.monotonic()
    with ui.working("image", f"{plan.ref}") as progress:
        image, made = ensure_image(
            plan,
            images,
            existing,
            build=lambda wanted, on_line: build_own(wanted, images, existing, env=dict(os.environ), on_line=on_line),
            on_line=progress,
        )
    how = f"built in {time.monotonic() - started:.0f} s" if made and plan.own else "pulled" if made else "present"
    ui.step("image", f"{plan.ref} ({how})" + ("" if plan.own else f" {image.id[:19]}"))
    return image


def ensure_image(
    plan: ImagePlan,
    images: Images,
    image: Image | None,
    *,
    build: Callable[[ImagePlan, Callable[[str], None]], Image],
    on_line: Callable[[str], None],
) -> tuple[Image, bool]:
    """Return the image of the plan, and whether it was built or pulled now. ``image``: the present image of that name.

    Our own image is built when it is absent or stale; another one is pulled when it is absent.
    Raises ImageUnavailable; Refused for a digest mismatch.
    """
    made = False
    if plan.own and (image is None or not fits(plan, image)):
        image, made = build(plan, on_line), True
    elif image is None:
        try:
            image, made = images.pull(plan.ref, on_line), True
        except EngineError as error:
            raise ImageUnavailable(
                f"the image {plan.ref} is not present and can't be pulled",
                hint=f"load it with {images.engine} load, or leave out --image to build deployer's own image",
                details=error.details or (error.message,),
            ) from None
    if plan.digest and plan.digest != image.id and not any(d.endswith("@" + plan.digest) for d in image.digests):
        raise Refused(
            f"digest mismatch of the image {plan.ref}: {image.id}, pinned {plan.digest}",
            hint="set image.digest to the digest of the trusted image",
        )
    return image, made


def build_own(
    plan: ImagePlan, images: Images, former: Image | None, *, env: dict[str, str], on_line: Callable[[str], None]
) -> Image:
    """Build our own image with the settings of this host's pip. ``former``: the previous image of that name; it is
    removed unless a container uses it.

    Raises ImageUnavailable, Refused.
    """
    from deployer.clients import pip
    from deployer.clients.client import Account
    from deployer.image import DEFAULT_BASE, PipSettings, prepare
    from deployer.operations.prepare import is_ours

    settings = PipSettings(**pip.build_settings(pip.read_config(Account.of(env)), ours=is_ours))
    with TemporaryDirectory(prefix="deployer-build-") as directory:
        base = plan.base or DEFAULT_BASE
        known = images.find(base)
        request = prepare(
            Path(directory),
            base=base,
            found_base=next(iter(known.digests), known.id) if known is not None else "",
            pip=settings,
            secrets_ok=images.builds_with_secrets(),
            major=plan.major,
            plugins=plan.plugins,
            from_environment=tuple(proxies(env)) if plan.proxy else (),
        )
        image = images.build(request, on_line)
    if former is not None and former.id != image.id:
        remove_former(images, former.id)
    return image


def remove_former(images: Images | None, image: str, *, ref: str = "") -> None:
    """Remove our image with the ID ``image`` if no container uses it, and it has no name, or that of other plugins than
    the image ``ref`` has.

    A failure is ignored: it costs disk space only.
    """
    from deployer.image import is_with_plugins

    if images is None:
        return
    with suppress(EngineError):
        found = images.find(image)
        if (
            found is not None
            and LABEL_BUILD in found.labels
            and all(is_with_plugins(name) and name != ref for name in found.names)
        ):
            images.remove(image)
