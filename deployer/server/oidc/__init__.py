"""Short-lived tokens for jobs of CI, in exchange for the ID token (OpenID Connect) of the job."""
