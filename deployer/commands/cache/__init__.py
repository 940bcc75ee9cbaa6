"""``deployer cache``: what the server has of its upstreams."""
