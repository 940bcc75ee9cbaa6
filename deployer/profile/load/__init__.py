"""Load a profile: find, read and merge its files, and record the source of each value.

Merge order: defaults < what ``extends:`` names < the profile < options and variables. Mappings merge key by key, lists
are replaced. All problems are reported at once, each with file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployer.profile.load import lists
from deployer.profile.load.chain import Chain
from deployer.profile.load.files import is_path, reference, user_profiles
from deployer.profile.load.layers import Stack, nested, values
from deployer.profile.load.overrides import Override
from deployer.profile.models import Profile
from deployer.profile.problems import Source, profile_error
from deployer.profile.validation import HEAD, validate


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checked profile. ``sources``: dotted key to ``file:line`` or option, for every value that is not a default.
    ``files``: the profile's own first, then those that it extends. ``overrides``: values of options and variables."""

    profile: Profile
    name: str
    sources: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    ref: str = ""
    overrides: tuple[Override, ...] = ()


def load(ref: str = "default", *, overrides: Sequence[Override] = (), user_dir: Path | None = None) -> Loaded:
    """Load the profile ``ref`` (a name, or a path with a slash or ending in .yaml) and check it.

    Raises ProfileError with every problem, each as ``file:line: key: cause``.
    """
    chain = Chain(user_dir or user_profiles())
    chain.follow(ref)
    stack = Stack()
    for document in reversed(chain.documents):
        said = {key: value for key, value in document.tree.items() if key not in HEAD}
        stack.put(said, document.sources)
    for override in overrides:
        tree = nested(override.path, override.value)
        stack.put(tree, {path: Source(where=override.source) for path, _ in values(tree)})
    layers, unread = lists.read(stack.tree, stack.source_of)
    for layer in layers:
        stack.put(nested(layer.path, layer.words), layer.sources)
    profile, problems = validate(stack.tree, stack.source_of, partial=bool(chain.problems))
    problems = [*chain.problems, *([] if chain.problems else stack.problems), *unread, *problems]
    if problems or profile is None:
        raise profile_error(problems)
    return Loaded(
        profile=profile,
        name=Path(ref).stem if is_path(ref) else ref,
        sources=stack.leaf_sources(),
        files=tuple(chain.paths),
        ref=reference(ref),
        overrides=tuple(overrides),
    )
