"""Spark and Delta: from drops to published nights. Floor 2: knows `lime_model`, not Airflow."""
