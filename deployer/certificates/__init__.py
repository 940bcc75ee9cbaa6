"""Certificates for HTTPS: what one says, whether it can be used, and a CA that signs them. Without effects.

The ``cryptography`` package does the work. It is imported when it is needed: only the extras ``tls`` and
``transparent`` bring it.
"""
