"""Configurations: YAML in layers, the published dialect, the registry of names, the table of families."""
