"""The weekly DAG that keeps the warehouse small: it compacts files, drops old staged rows and vacuums.

    airflow dags trigger weekly_upkeep --conf '{"night": "2017-12-31"}'

It may run at the same time as a night: the one that loses a write conflict is tried again.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.options import Options, read_options
from dags.tasks import every, night_param, scheduled, submit_job


def build(options: Options) -> DAG:
    """Return the DAG of a tenant."""
    with DAG(
        dag_id=options.dag_id("weekly_upkeep"),
        description="Removes files that neither a night nor a pin needs, and merges small ones",
        schedule=every(options.upkeep_schedule),
        params={"night": night_param("The newest night")},
        doc_md=__doc__,
        **scheduled(options),
    ) as dag:
        submit_job(
            options,
            "tidy",
            "tidy_tables",
            doc_md="Keeps what `upkeep` in the settings says, and what pins need.",
        )
    return dag


for tenant in read_options().tenants:
    globals()[tenant.dag_id("weekly_upkeep")] = build(tenant)
