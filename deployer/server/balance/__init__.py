"""The balancer of a cluster on one host: nginx before its members, and nothing else."""
