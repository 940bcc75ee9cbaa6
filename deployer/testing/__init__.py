"""A package index of their own for the tests of other projects.

``running_index`` is a context manager; the pytest fixture ``deployer_index`` comes with the installed package;
``DevpiContainer`` has the interface of testcontainers. All three run ``deployer up`` and ``deployer down``.
"""

from deployer.testing.container import DevpiContainer
from deployer.testing.index import IndexFailed, RunningIndex, running_index

__all__ = ["DevpiContainer", "IndexFailed", "RunningIndex", "running_index"]
