"""Errors: explain what Spark, Delta, the storages and the operating system report, in one sentence each.

What comes in: an exception of Spark or of the operating system, or the text of a Java stack trace.
What goes out: a `LimeError` with the cause (file, path, host or value) and the remedy, or None.
"""
