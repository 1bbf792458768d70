"""The weekly DAG: train the nightly model anew, and promote it only if it is better.

    airflow dags trigger weekly_training --conf '{"night": "2017-12-31"}'

One Spark application trains on the events before the last days (`promotion.horizon_days`). It then measures
the new bundle, the champion, popularity and personal frequency on those days, and decides. A promoted bundle
makes the next night a full one; a killed training continues from its last checkpoint.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from dags.spark_conf import CHAMPIONS, EVENTS, SCHEDULED, every, submit_job

with DAG(
    dag_id="weekly_training",
    description="Compares a new bundle with the champion, on days that neither has seen",
    schedule=every("0 6 * * 6"),
    params={
        "night": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The first night that the new bundle may serve",
        ),
    },
    doc_md=__doc__,
    **SCHEDULED,
) as dag:
    submit_job(
        "challenge",
        "challenge_model",
        doc_md="Trains a bundle and promotes it if it is better than the champion; keeps the reason.",
        inlets=[EVENTS],
        outlets=[CHAMPIONS],
    )
