"""Clients that keep the upstream's own addresses and get everything from the index.

A proxy on loopback, the tunnel, answers for the hosts of the upstream and passes everything else through. ``routes``
and ``tunnel`` are the program that runs beside the client; they import the standard library only.
"""
