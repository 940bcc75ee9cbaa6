"""Lock files that name a devpi index: finding its addresses, and putting the upstream's in their place. Pure."""
