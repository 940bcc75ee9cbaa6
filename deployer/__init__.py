"""deployer: your own Python package index in one command."""

__version__ = "0.1.0"

DISTRIBUTION = "devpi-deployer"
"""The name that pip knows us by: `deployer` is another project of the public index."""
