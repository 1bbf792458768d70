"""The demo: The Complete Journey through the real DAG, and a page to look at. Above all floors."""
