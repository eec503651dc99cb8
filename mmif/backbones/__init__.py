"""Frozen networks that others trained, and where their weights are found."""
