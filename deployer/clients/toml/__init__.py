"""Clients whose files are TOML: where their index stands in them is data, editing is shared."""
