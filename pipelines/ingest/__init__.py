"""Load drop folders into the tables `events`, `items`, `users` and `events_quarantine`.

The input is `raw/<source>/ds=YYYY-MM-DD/` with Parquet, CSV or JSON lines; a day can be delivered again.
The output is tables that depend only on which drops were delivered, not on the order; see docs/ingest.md.
"""
