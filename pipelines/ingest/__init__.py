"""Ingest: from drop folders to the tables `events`, `items`, `users` and `events_quarantine`.

What comes in: `raw/<source>/ds=YYYY-MM-DD/` of Parquet, CSV or JSON lines, however often a day is delivered.
What goes out: tables that are a function of the drops delivered, whatever the order; see docs/ingest.md.
"""
