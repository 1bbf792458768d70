"""The commands of `lime`: their names, definitions and groups, and the module that runs each of them.

To add a command, add a line to `COMMANDS`. Its module has a function `run(args)`, which returns the exit
code; `args` holds the options of its definition, `config`, `verbose`, `json` and `output`. The module is
imported when the command runs, so it may import Spark and torch.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from jobs import definitions
from jobs.definitions import OF_A_NIGHT
from jobs.options import Definition

NIGHT: Final = Definition(
    "night",
    "Run all steps of a night in one Spark application, from the drops to the published and exported lists.",
    ("--ds 2017-12-04", "--ds 2017-12-04 --run-key again"),
    OF_A_NIGHT,
    """\
The command prints what it will do and how long that took the last time, a line for each step that has ended,
and a table at the end. While a step works, stderr shows how far it is. If it is interrupted, the same command
goes on where it stopped. For a night that Airflow or a cluster runs, use the
DAG or spark-submit.""",
    scores=True,
)

CHECK: Final = Definition(
    "check",
    "Check the settings and this machine, before anything is computed.",
    ("", "--config conf/local.yaml --json"),
    details="""\
The command validates the settings and looks for Java, memory, disk space, the Delta jars, the native kernel,
the drops and the stores that the settings name. It starts no Spark and changes nothing. The exit code is 3 if
a check failed, and 0 if there are only warnings.""",
)

STATUS: Final = Definition(
    "status",
    "Show the last nights, the lists in force, the champions, and what is wrong with its remedy.",
    ("", "--json"),
    details="The command reads the tables without Spark and changes nothing.",
)


class Command(NamedTuple):
    """A command of `lime`: its definition, the module that runs it, and its group in the help."""

    definition: Definition
    module: str
    group: str


A_NIGHT, MODELS, AFTERWARDS, MACHINE = "A night", "Models", "Published nights", "This machine"

COMMANDS: Final[dict[str, Command]] = {
    "ingest": Command(definitions.INGEST_EVENTS, "jobs.ingest_events", A_NIGHT),
    "plan": Command(definitions.PLAN_NIGHT, "jobs.plan_night", A_NIGHT),
    "night": Command(NIGHT, "jobs.lime.night", A_NIGHT),
    "train": Command(definitions.TRAIN_MODEL, "jobs.train_model", MODELS),
    "challenge": Command(definitions.CHALLENGE_MODEL, "jobs.challenge_model", MODELS),
    "evaluate": Command(definitions.EVALUATE_MODEL, "jobs.evaluate_model", MODELS),
    "status": Command(STATUS, "jobs.lime.status", AFTERWARDS),
    "report": Command(definitions.REPORT_NIGHT, "jobs.report_night", AFTERWARDS),
    "export": Command(definitions.EXPORT_RECOMMENDATIONS, "jobs.export_recommendations", AFTERWARDS),
    "rollback": Command(definitions.ROLL_BACK, "jobs.roll_back", AFTERWARDS),
    "pin": Command(definitions.PIN_NIGHT, "jobs.pin_night", AFTERWARDS),
    "forget": Command(definitions.FORGET_USER, "jobs.forget_user", AFTERWARDS),
    "tidy": Command(definitions.TIDY_TABLES, "jobs.tidy_tables", AFTERWARDS),
    "check": Command(CHECK, "jobs.lime.check", MACHINE),
}
