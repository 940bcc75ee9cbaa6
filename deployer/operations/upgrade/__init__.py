"""Upgrade a deployment, and go back: ``forward``, ``back``; ``record`` is what the way back needs."""
