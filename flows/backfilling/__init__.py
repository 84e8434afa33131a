"""How a backfill is executed: the loop, the ways to run an item, and the page that people watch."""
