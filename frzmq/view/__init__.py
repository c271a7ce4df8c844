"""A snapshot in a browser: Perfetto's user interface and the trace that it shows, served on this host."""
