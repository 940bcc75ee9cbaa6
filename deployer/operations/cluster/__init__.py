"""What the verbs do for a cluster, above all places where its members may run."""
