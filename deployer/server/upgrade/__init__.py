"""Upgrades of a server directory, beside the server that runs on it.

The data of devpi-server 6 is read from its database and written with devpi-server 7 to a new server directory inside
the old one; files are hard links. What is committed meanwhile follows, project by project, until the last of it is
taken while commits are held back. Then the two sets of data change places by renames.
"""
