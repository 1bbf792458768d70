"""The definition of each command: its name, description, examples and options.

Both faces of a command are made from its definition, so that they cannot differ: the parser of
`jobs/NAME.py` (`parse` in `command.py` makes it) and the command of `lime` (`lime/face.py` makes it). This
module imports neither Spark nor torch, because `lime --help` reads it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from jobs.arguments import count, night_date, price, run_key, short_run_key, words
from jobs.option_checks import check_days, check_rollback, check_user
from jobs.options import Definition, Option
from pipelines.steps import NIGHT_STEPS

_NIGHT = Option("--ds", "the night; only events before this UTC day count", night_date, required=True)
_RUN_KEY = Option(
    "--run-key",
    "run name; the same key resumes it, a new one takes the night over",
    run_key,
    default="manual",
)
OF_A_NIGHT: Final = (_NIGHT, _RUN_KEY)
_MODELS = Option("--model", "a model of the settings; may be repeated", kind="repeated")


def _step(name: str, summary: str) -> Definition:
    """Return the definition of a job that is one step of a night and has no options of its own."""
    return Definition(name, summary, ("--ds 2017-12-04",), OF_A_NIGHT)


def _day(about: str) -> Option:
    return Option("--ds", about, night_date, required=True)


def _reason(about: str) -> Option:
    return Option("--reason", about, words, required=True)


INGEST_EVENTS: Final = Definition(
    "ingest_events",
    "Load drops into the tables events, items and users; bad rows go to events_quarantine.",
    ("--ds 2017-12-04", "--from 2017-01-01 --to 2017-12-02"),
    (
        Option(
            "--ds", "the night; the drop of the day before is loaded, and earlier drops that are missing",
            night_date,
        ),
        Option("--from", "first drop day of a range", night_date, name="first"),
        Option("--to", "last drop day of a range", night_date, name="last"),
        Option("--run-key", "this option is ignored, because loading needs no lease"),
    ),
    """\
`--ds` is a night, as for every job: the job loads the drop of the day before, which is the last drop that the
night sees, and the drops of earlier days that no job has loaded yet. `--from` and `--to` are the days of the
drops themselves.""",
    check_days,
)  # fmt: skip

TRAIN_MODEL: Final = Definition(
    "train_model",
    "Train models on all events before a cut-off and write their bundles.",
    ("--ds 2017-12-04", "--ds 2017-12-04 --model lime-mha --model lime-xor"),
    (_day("the cut-off day"), _MODELS),
    """\
`--ds` is the cut-off: events from that day on are not read. Without `--model`, the job trains every model of
the settings. A bundle that was trained from the same settings and table versions is kept.""",
)

CHALLENGE_MODEL: Final = Definition(
    "challenge_model",
    "Train a model anew, compare it with its champion and the baselines, and promote it only if it is "
    "better.",
    ("--ds 2017-12-31", "--ds 2017-12-31 --model lime-xor"),
    (*OF_A_NIGHT, Option("--model", "a model of the settings (default: night.model)")),
    """\
The last `promotion.horizon_days` before `--ds` are left out of training; both models are measured on them. A
promoted bundle serves the nights from `--ds` on, the first of which is a full night. The exit code is 0
whether or not the new bundle is promoted.""",
    scores=True,
)

PLAN_NIGHT: Final = Definition(
    "plan_night",
    "Forecast the cost of a night before it runs.",
    ("--ds 2017-12-04", "--ds 2017-12-04 --run-key first --price-per-hour 0.05"),
    (
        *OF_A_NIGHT,
        Option("--price-per-hour", "price of a core for an hour, or of a GPU where one scores", price),
    ),
    """\
The job prints users, candidates, pairs, bytes, memory, tasks and seconds; it measures every core for a
second. Given the price of a core for an hour, or of a GPU where one scores, it also prints the cost. The exit
code is 3 if the night cannot run. A run that is at work keeps its lease. The scoring manifest of the run with
this key later shows the forecast and the measured cost together.""",
    scores=True,
)

BUILD_CANDIDATE_BANK: Final = _step("build_candidate_bank", "Build the night's candidate bank and item bias.")
BUILD_LINK_STATES: Final = _step(
    "build_link_states", "Build the link states and the repeat memory of every user as of the night."
)
SCORE_CANDIDATES: Final = _step(
    "score_candidates", "Score every user against every eligible candidate, and write the lists to staging."
)
AUDIT_RECOMMENDATIONS: Final = _step(
    "audit_recommendations",
    "Audit the staged lists: check the invariants, and compare drift, churn and concentration with their "
    "limits.",
)
PUBLISH_RECOMMENDATIONS: Final = _step(
    "publish_recommendations", "Publish the staged and certified lists in one commit."
)

VERIFY_NIGHT: Final = Definition(
    "verify_night",
    "Certify the staged lists of sampled users against the unfolded model.",
    ("--ds 2017-12-04", "--ds 2017-12-04 --run-key first --full"),
    (*OF_A_NIGHT, Option("--full", "compare every list with a full night's", kind="switch", default=False)),
    """\
`--full` also scores all users against all candidates again and compares every list: an incremental night must
give the same lists as a full one.""",
)

EXPORT_RECOMMENDATIONS: Final = Definition(
    "export_recommendations",
    "Export a published night to the stores that the settings name: Redis, Valkey or Parquet.",
    ("--ds 2017-12-04", "--ds 2017-12-04 --older"),
    (
        *OF_A_NIGHT,
        Option("--older", "export this night even if a newer one is served", kind="switch", default=False),
    ),
    """\
Readers see the earlier night until all lists have arrived, and then this one. A repeated or killed export
continues where it stopped.""",
)

ROLL_BACK: Final = Definition(
    "roll_back",
    "Take back a published night, or return to an earlier bundle of a model.",
    (
        '--ds 2017-12-04 --reason "prices were wrong"',
        '--ds 2017-12-05 --model lime-mha --reason "fewer sales"',
    ),
    (
        _day("the night, or the first night of the model's bundle"),
        Option("--model", "roll back this model of the settings, not the night's lists"),
        Option("--to", "run id of the night to restore, or version of the model's bundle"),
        Option(
            "--from", "take back this run, or nothing if it is not in force", name="expected",
            metavar="RUN_ID",
        ),
        _reason("the reason, which is kept with the decision"),
        Option("--run-key", "repeat an interrupted command under its name (default: a new one)", run_key),
    ),
    """\
Without `--model`, the job restores the lists of the night that were in force before, bit for bit. It passes
over lists that were themselves taken back or that a full comparison has disproved. If no other lists remain,
the night is withdrawn and readers find the night before it. `--to RUN_ID` names the lists to restore. `--from
RUN_ID` names the run to take back. A second run can be taken back right after a first one only with `--from`,
so that a command that is sent twice does its work once.

With `--model`, the nights from `--ds` on use the bundle before the champion, or the one that `--to VERSION`
names; the next night is a full night.""",
    check_rollback,
)  # fmt: skip

TIDY_TABLES: Final = Definition(
    "tidy_tables",
    "Compact small files, drop the staged rows of old nights, and vacuum.",
    ("--ds 2017-12-04",),
    (_day("the newest night"),),
    """\
The job runs once a week, at the same time as a night or between two nights. It keeps the nights that `upkeep`
in the settings asks for, counted from `--ds`, and everything that a pinned night needs.""",
)

PIN_NIGHT: Final = Definition(
    "pin_night",
    "Pin a published night, so that upkeep keeps it and everything it was computed from, or release the pin.",
    (
        '--ds 2017-12-04 --reason "audit of the fourth quarter"',
        '--ds 2017-12-04 --reason "audit is over" --release',
    ),
    (
        _day("a published night"),
        _reason("the reason, which is kept with the pin"),
        Option("--release", "end the pins of the night", kind="switch", default=False),
    ),
)

FORGET_USER: Final = Definition(
    "forget_user",
    "Remove a user from every table and export, including their older versions, and prove it.",
    ('--ds 2017-12-04 --user 1234 --reason "request 17"',),
    (
        *OF_A_NIGHT,
        Option("--user", "the user id, in any spelling that ingest reads"),
        Option("--user-env", "the environment variable that holds the id, so that no process list has it"),
        _reason("the reason, which the manifest keeps; it does not keep the id"),
    ),
    """\
Run this job while no night runs, and remove the user from the source first: a drop that is ingested again
brings the user back. Afterwards neither time travel nor a rollback can reach an earlier version.""",
    check_user,
)

EVALUATE_MODEL: Final = Definition(
    "evaluate_model",
    "Measure models offline as of a night, and compare them with popularity and personal frequency.",
    ("--ds 2017-12-04", "--ds 2017-12-04 --model lime-mha --horizon-days 14"),
    (
        _NIGHT,
        replace(_RUN_KEY, check=short_run_key),
        _MODELS,
        Option(
            "--horizon-days", "number of days after the night whose events are the truth", count, default=28
        ),
        Option("--min-events", "number of events that a user needs to be counted", count, default=20),
    ),
    """\
The job scores every model under every evaluation policy of the settings. It writes to tables of its own: it
publishes nothing and changes no night. The events of the weeks after the night must have been ingested.""",
    scores=True,
)

RUN_STEPS: Final = Definition(
    "run_steps",
    "Run several steps of a night in one Spark application.",
    ("--ds 2017-12-04 --steps build_candidate_bank build_link_states",),
    (
        *OF_A_NIGHT,
        Option(
            "--steps", "the steps, in the order in which they run", kind="several", required=True,
            choices=NIGHT_STEPS,
        ),
    ),
    "Each step does the same as the job of its name; the shared application saves the start of several "
    "sessions.",
)  # fmt: skip

REPORT_NIGHT: Final = Definition(
    "report_night",
    "Write the page of a night, published or not, into `reports/` of the warehouse.",
    ("--ds 2017-12-04",),
    (_day("the night, published or not"),),
    "The job reads the tables without Spark and prints the path of the page, which is one HTML file.",
)
