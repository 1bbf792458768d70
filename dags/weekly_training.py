"""The weekly DAG: train the nightly model anew, and promote it only if it is better.

    airflow dags trigger weekly_training --conf '{"night": "2017-12-31"}'

One Spark application trains on what lies before the last days (`promotion.horizon_days`), measures the new
bundle and the champion on those days beside popularity and personal frequency, and decides. A promoted
bundle makes the next night a full one; a killed training goes on from its last checkpoint.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from dags.spark_conf import CHAMPIONS, EVENTS, SCHEDULED, every, submit_job

with DAG(
    dag_id="weekly_training",
    description="A new bundle against the champion, on days that neither has seen",
    schedule=every("0 6 * * 6"),
    params={
        "night": Param(
            None, type=["null", "string"], format="date", description="The first night it may serve"
        ),
    },
    doc_md=__doc__,
    **SCHEDULED,
) as dag:
    submit_job(
        "challenge",
        "challenge_model",
        "Trains, measures beside the champion, promotes when better; the reason is kept with the decision.",
        inlets=[EVENTS],
        outlets=[CHAMPIONS],
    )
