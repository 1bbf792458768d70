"""Report: say in the morning what happened last night, on the terminal and as a page, without Spark.

What comes in: the tables of the warehouse, and the manifests of their runs.
What goes out: the status of the warehouse, and one HTML page for each night.
"""
