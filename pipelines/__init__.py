"""Pipelines: Spark and Delta work from drops to published lists. They know `lime_model` but not Airflow.

What comes in: the settings, and the folders of drops with events, items and users.
What goes out: trained bundles, a published night of lists, their export, and the record of every run.
"""
