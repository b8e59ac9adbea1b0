"""Doors to the connectors' packages, under the import paths that users know."""
