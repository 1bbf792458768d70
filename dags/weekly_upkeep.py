"""The weekly DAG that keeps the warehouse small: compacts, drops old staged rows, vacuums.

    airflow dags trigger weekly_upkeep --conf '{"night": "2017-12-31"}'

It may run beside a night: whichever loses a conflict is tried again.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from dags.spark_conf import SCHEDULED, every, submit_job

with DAG(
    dag_id="weekly_upkeep",
    description="Few files, and none that neither a night nor a pin needs",
    schedule=every("0 12 * * 0"),
    params={
        "night": Param(None, type=["null", "string"], format="date", description="The newest night"),
    },
    doc_md=__doc__,
    **SCHEDULED,
) as dag:
    submit_job("tidy", "tidy_tables", "Keeps what `upkeep` in the settings says, and what pins need.")
