"""The content-addressed store: artifacts, claims, records."""
