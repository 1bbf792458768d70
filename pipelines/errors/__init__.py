"""Explain each error that Spark, Delta, a storage or the operating system reports, in one sentence.

The input is an exception of Spark or of the operating system, or the text of a Java stack trace.
The output is a `LimeError` with the cause (file, path, host or value) and the remedy, or None.
"""
