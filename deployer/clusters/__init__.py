"""Places where several members of one index run: this host, a Docker Swarm, Kubernetes."""
