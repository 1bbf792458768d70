"""The weekly DAG that keeps the warehouse small: it compacts files, drops old staged rows and vacuums.

    airflow dags trigger weekly_upkeep --conf '{"night": "2017-12-31"}'

It may run at the same time as a night: the one that loses a write conflict is tried again.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from dags.spark_conf import SCHEDULED, every, submit_job

with DAG(
    dag_id="weekly_upkeep",
    description="Removes files that neither a night nor a pin needs, and merges small ones",
    schedule=every("0 12 * * 0"),
    params={
        "night": Param(None, type=["null", "string"], format="date", description="The newest night"),
    },
    doc_md=__doc__,
    **SCHEDULED,
) as dag:
    submit_job("tidy", "tidy_tables", doc_md="Keeps what `upkeep` in the settings says, and what pins need.")
