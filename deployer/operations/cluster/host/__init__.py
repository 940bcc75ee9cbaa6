"""The members of a cluster on this host: deployments of their own, and a balancer before them."""
