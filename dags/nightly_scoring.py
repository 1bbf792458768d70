"""The nightly DAG: ingest, build, score, verify and publish one night.

    airflow dags test nightly_scoring 2017-12-04
    airflow dags trigger nightly_scoring --conf '{"night": "2017-12-04"}'

Three Spark applications a night, or one (LIME_APPLICATIONS=1) where a session's start weighs more
than what tasks of their own give. A retry resumes its run and changes nothing that is done; a
new run of the same night takes it over and publishes the same lists.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Param, chain

from dags.spark_conf import APPLICATIONS, submit

PREPARE = ["ingest_events", "build_candidate_bank", "build_link_states"]
SCORE, PUBLISH = ["score_candidates"], ["verify_night", "publish_recommendations"]

TASKS = {
    1: {"night": (PREPARE + SCORE + PUBLISH, "The whole night in one application.")},
    3: {
        "prepare": (PREPARE, "Loads the drop of the day before; items to factors; histories to states."),
        "score": (SCORE, "Every user against every candidate, into staging."),
        "publish": (PUBLISH, "Certifies sampled users against the unfolded model; publishes in one commit."),
    },
}

with DAG(
    dag_id="nightly_scoring",
    description="Every user's exact top K over all candidates, published in one commit",
    schedule="@daily",
    start_date=pendulum.datetime(2017, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "night": Param(
            None, type=["null", "string"], format="date", description="Events before this UTC day count"
        ),
        "run_key": Param(None, type=["null", "string"], description="Resume or take over under this name"),
    },
    doc_md=__doc__,
    tags=["lime"],
) as dag:
    chain(*(submit(task_id, steps, doc) for task_id, (steps, doc) in TASKS[APPLICATIONS].items()))
