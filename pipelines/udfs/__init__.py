"""The bodies of UDFs are plain functions over iterators of Arrow batches; each runs without Spark.

What comes in: Arrow batches of drops, items, histories, users or lists, and frozen dataclasses of options.
What goes out: Arrow batches with the rows, factors, states, scores or counts made from them.
"""
