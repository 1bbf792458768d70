"""Manage the Spark session, the Delta tables of the warehouse, and files on any storage of Spark.

The input is the settings, and rows that other packages compute.
The output is sessions, tables and versions of tables, predicates, leases, and the manifests of runs.
"""
