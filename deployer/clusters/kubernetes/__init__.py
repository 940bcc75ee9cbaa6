"""Members as pods of a Kubernetes: their manifests, and the place that applies them by kubectl."""
