"""The format of a bundle: what a deployment needs on a machine without a network, in one tar file or directory.

::

    profile.yaml           users, indexes and options of the server
    image.tar              the server's image, as the engine saves it
    wheels/NAME.whl        deployer, and the server where no engine runs it
    blobs/SHA256           files of indexes, their metadata, provenance and signatures
    bundle.json            which index has which blob under which name (:mod:`deployer.bundle.manifest`)
    SHA256SUMS             the checksum of every other member, in the format of sha256sum
    SHA256SUMS.sig         its signature, in the format of ssh-keygen -Y (:mod:`deployer.bundle.signature`)

The two last stand at the end: without them a bundle is unfinished.
"""

from __future__ import annotations
