"""What devpi tells of files that change, without what that costs for the thousands of links of a mirror's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployer.server.devpi.installed import inside

SUBSCRIBER = "on_changed_file_entry"
"""devpi's own, which tells plugins of uploads. It opens a transaction for each link, only to leave mirrors out."""
_HOOKS = ("devpiserver_on_upload", "devpiserver_on_remove_file")
"""Of plugins, which is all that it is for."""


def spare_mirrors(xom: Any) -> None:
    """Have devpi find out once a commit, and not once a link, that an index is a mirror; and not at all where no plugin
    wants to be told of uploads.

    A new page of a popular project is one commit with thousands of links. Where devpi's code is another one than was
    read for this, nothing is changed. To be called before the notifier starts.
    """
    told: list[Any] = getattr(xom.keyfs.notifier, "_on_key_change", {}).get(inside().FILE, [])
    others = [subscriber for subscriber in told if getattr(subscriber, "__name__", "") != SUBSCRIBER]
    if _is_heard(xom.config.hook):
        told[:] = [subscriber if subscriber in others else Sparing(xom, subscriber) for subscriber in told]
    else:
        told[:] = others


def _is_heard(hooks: Any) -> bool:
    """Whether any plugin is called by devpi's own subscriber."""
    known = [getattr(hooks, name, None) for name in _HOOKS]
    return any(hook is None or hook.get_hookimpls() for hook in known)


class Sparing:
    """A subscriber to changes of files that are not a mirror's. The notifier calls it, from its one thread."""

    def __init__(self, xom: Any, subscriber: Callable[[Any], None]) -> None:
        self._xom = xom
        self._subscriber = subscriber
        self._asked: tuple[int, str, str] | None = None
        self._spared = False
        self.__name__ = SUBSCRIBER  # for devpi's log

    def __call__(self, event: Any) -> None:
        of = inside().key_of(event).params
        asked = (event.at_serial, of["user"], of["index"])
        if asked != self._asked:
            self._spared = self._is_mirror(*asked)
            self._asked = asked
        if not self._spared:
            self._subscriber(event)

    def _is_mirror(self, serial: int, user: str, index: str) -> bool:
        with self._xom.keyfs.read_transaction(at_serial=serial):
            stage = self._xom.model.getstage(user, index)
            return stage is not None and inside().is_mirror(stage)
