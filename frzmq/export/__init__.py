"""Snapshots in the formats of other tools, and as pictures and text."""
