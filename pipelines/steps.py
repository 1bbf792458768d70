"""The names of all jobs, and the order of the steps of a night.

A job's name is the name of its file in `jobs/`, of its rows in the table `runs` and of its task in Airflow.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Job(StrEnum):
    """A name under which a manifest is recorded in `runs`."""

    # The steps of a night, in their order.
    INGEST_EVENTS = "ingest_events"
    BUILD_CANDIDATE_BANK = "build_candidate_bank"
    BUILD_LINK_STATES = "build_link_states"
    SCORE_CANDIDATES = "score_candidates"
    VERIFY_NIGHT = "verify_night"
    AUDIT_RECOMMENDATIONS = "audit_recommendations"
    PUBLISH_RECOMMENDATIONS = "publish_recommendations"
    EXPORT_RECOMMENDATIONS = "export_recommendations"
    # Manifests that steps record in addition to their own.
    SCORING_PLAN = "score_candidates_plan"  # which run a night starts from, fixed by its first attempt
    VERIFY_FULL = "verify_full"  # a comparison with a full night that passed
    DISPROVED = "disproved"  # a comparison with a full night that failed
    FAILED_AUDIT = "failed_audit"
    # Jobs that are not steps of a night.
    PLAN_NIGHT = "plan_night"
    TRAIN_MODEL = "train_model"
    CHALLENGE_MODEL = "challenge_model"
    EVALUATE_MODEL = "evaluate_model"
    ROLL_BACK = "roll_back"
    PIN_NIGHT = "pin_night"
    TIDY_TABLES = "tidy_tables"
    FORGET_USER = "forget_user"


# Each step of a night with the steps of the same run whose results it reads.
NEEDS: Final[dict[Job, tuple[Job, ...]]] = {
    Job.INGEST_EVENTS: (),
    Job.BUILD_CANDIDATE_BANK: (),
    Job.BUILD_LINK_STATES: (),
    Job.SCORE_CANDIDATES: (Job.BUILD_CANDIDATE_BANK, Job.BUILD_LINK_STATES),
    Job.VERIFY_NIGHT: (Job.SCORE_CANDIDATES,),
    Job.AUDIT_RECOMMENDATIONS: (Job.SCORE_CANDIDATES, Job.VERIFY_NIGHT),
    Job.PUBLISH_RECOMMENDATIONS: (Job.SCORE_CANDIDATES, Job.VERIFY_NIGHT, Job.AUDIT_RECOMMENDATIONS),
    Job.EXPORT_RECOMMENDATIONS: (),
}
NIGHT_STEPS: Final = tuple(NEEDS)
# Steps whose Python workers load torch.
UDF_STEPS: Final = frozenset((Job.BUILD_CANDIDATE_BANK, Job.BUILD_LINK_STATES, Job.SCORE_CANDIDATES))
