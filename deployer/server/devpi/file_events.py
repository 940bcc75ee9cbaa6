"""devpi's notifications of changed files, without their cost for the thousands of links of a mirror's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployer.server.devpi.installed import inside

SUBSCRIBER = "on_changed_file_entry"
"""devpi's subscriber, which notifies plugins of uploads. It opens a transaction for each link, to skip mirrors."""
_HOOKS = ("devpiserver_on_upload", "devpiserver_on_remove_file")
"""The hooks of plugins that it calls."""


def skip_mirrors(xom: Any) -> None:
    """Have devpi look once per commit, not once per link, whether an index is a mirror; never if no plugin listens.

    A new page of a popular project is one commit with thousands of links. Where devpi's notifier is an unknown one,
    nothing is changed: that costs time and protects nothing. Call it before the notifier starts.
    """
    subscribers: list[Any] = getattr(xom.keyfs.notifier, "_on_key_change", {}).get(inside().FILE, [])
    others = [subscriber for subscriber in subscribers if getattr(subscriber, "__name__", "") != SUBSCRIBER]
    if _has_listeners(xom.config.hook):
        subscribers[:] = [one if one in others else SkipMirrors(xom, one) for one in subscribers]
    else:
        subscribers[:] = others


def _has_listeners(hooks: Any) -> bool:
    """Whether any plugin implements a hook that devpi's subscriber calls."""
    known = [getattr(hooks, name, None) for name in _HOOKS]
    return any(hook is None or hook.get_hookimpls() for hook in known)


class SkipMirrors:
    """A subscriber to changes of files, except those of mirrors. devpi's notifier calls it, in one thread."""

    def __init__(self, xom: Any, subscriber: Callable[[Any], None]) -> None:
        self._xom = xom
        self._subscriber = subscriber
        self._last: tuple[int, str, str] | None = None
        self._skipped = False
        self.__name__ = SUBSCRIBER  # for devpi's log

    def __call__(self, event: Any) -> None:
        of = inside().key_of(event).params
        commit = (event.at_serial, of["user"], of["index"])
        if commit != self._last:
            self._skipped = self._is_mirror(*commit)
            self._last = commit
        if not self._skipped:
            self._subscriber(event)

    def _is_mirror(self, serial: int, user: str, index: str) -> bool:
        with self._xom.keyfs.read_transaction(at_serial=serial):
            stage = self._xom.model.getstage(user, index)
            return stage is not None and inside().is_mirror(stage)
