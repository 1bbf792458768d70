"""The nightly DAG: ingest, build, score, verify and publish one night.

    airflow dags test nightly_scoring 2017-12-04
    airflow dags trigger nightly_scoring --conf '{"night": "2017-12-04"}'

Three Spark applications a night. A retry resumes its run and changes nothing that is done; a
new run of the same night takes it over and publishes the same lists.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Param

from dags.spark_conf import submit

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
    prepare = submit(
        "prepare",
        ["ingest_events", "build_candidate_bank", "build_link_states"],
        "Loads the drop of the day before; items to factors and tonight's bias; histories to states.",
    )
    score = submit("score", ["score_candidates"], "Every user against every candidate, into staging.")
    publish = submit(
        "publish",
        ["verify_night", "publish_recommendations"],
        "Certifies sampled users against the unfolded model, then publishes in one commit.",
    )
    prepare >> score >> publish
