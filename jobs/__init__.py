"""The command lines: each job parses its options and calls `pipelines`. No job knows Airflow."""
