"""deployer: your own Python package index in one command."""

__version__ = "0.1.0"
