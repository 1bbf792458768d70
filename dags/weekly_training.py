"""The weekly DAG: train the nightly model anew, and promote it only if it is better.

    airflow dags trigger weekly_training --conf '{"night": "2017-12-31"}'

One Spark application trains on the events before the last days (`promotion.horizon_days`). It then measures
the new bundle, the champion, popularity and personal frequency on those days, and decides. A promoted bundle
makes the next night a full one; a killed training continues from its last checkpoint. The event of the asset
names the champion afterwards, whether or not it is a new one.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.options import Options, read_options
from dags.tasks import every, night_param, scheduled, submit_job


def build(options: Options) -> DAG:
    """Return the DAG of a tenant."""
    with DAG(
        dag_id=options.dag_id("weekly_training"),
        description="Compares a new bundle with the champion, on days that neither has seen",
        schedule=every(options.training_schedule),
        params={"night": night_param("The first night that the new bundle may serve")},
        doc_md=__doc__,
        **scheduled(options),
    ) as dag:
        submit_job(
            options,
            "challenge",
            "challenge_model",
            doc_md="Trains a bundle and promotes it if it is better than the champion; keeps the reason.",
            inlets=[options.asset("events")],
            outlets=[options.asset("champions")],
        )
    return dag


for tenant in read_options().tenants:
    globals()[tenant.dag_id("weekly_training")] = build(tenant)
