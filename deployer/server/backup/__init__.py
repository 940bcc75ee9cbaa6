"""Backups of a server directory, taken while it serves, in a directory of plain files.

Every blob is named by its SHA-256, so that a second backup adds only what is new. A backup exists once its manifest has
its name, which is the last step: before it, every file that the copied database knows is a blob.
"""
