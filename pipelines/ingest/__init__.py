"""Ingest: load drop folders into the tables `events`, `items`, `users` and `events_quarantine`.

What comes in: `raw/<source>/ds=YYYY-MM-DD/` with Parquet, CSV or JSON lines; a day can be delivered again.
What goes out: tables that depend only on which drops were delivered, not on the order; see docs/ingest.md.
"""
