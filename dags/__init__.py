"""The Airflow DAGs, which know Airflow and the command lines of the jobs, and no other package."""
