"""Container builds that install from the index: what is passed to the builder. Pure."""
