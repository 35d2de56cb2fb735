"""Puts the course on Kubernetes, and takes it away again."""
