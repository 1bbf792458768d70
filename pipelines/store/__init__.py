"""Store: the Spark session, the Delta tables of the warehouse, and files on any storage of Spark.

What comes in: the settings, and rows that other packages compute.
What goes out: sessions, tables and versions of tables, predicates, leases, and the manifests of runs.
"""
