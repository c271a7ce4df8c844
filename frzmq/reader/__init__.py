"""Snapshots as people look at them: decoded, ordered, clocks aligned, merged over processes."""
