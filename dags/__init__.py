"""Airflow DAGs. Floor 4: knows Airflow and the jobs' command lines, nothing else of ours."""
