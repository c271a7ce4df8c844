"""Is a place fit to record in? In reading order: place (what was looked at), look (looks), checks (judges)."""
