"""Command lines: argument parsing and one pipeline call each. Floor 3: knows no Airflow."""
