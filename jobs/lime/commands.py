"""The commands of `lime`: their names, definitions and groups, and the module that runs each of them.

To add a command, add a line to `COMMANDS`. Its module has a function `run(args)`, which returns the exit
code; `args` holds the options of its definition, `config`, `verbose`, `json` and `output`. The module is
imported when the command runs, so it may import Spark and torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from jobs import definitions
from jobs.definitions import OF_A_NIGHT
from jobs.options import Definition, Option

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

BEGUN: Final = Path("lime-data/lime.yaml")  # where `lime init` writes settings, if nothing else is said

INIT: Final = Definition(
    "init",
    "Look at your own data, and write settings and daily drops that lead to a night.",
    ("orders.csv", "ratings.dat --user column1 --item column2 --yes", "landing --timezone Europe/Berlin"),
    (
        Option("DROPS", "a file, or a folder of Parquet, CSV or JSON lines", kind="argument", required=True),
        Option(
            "--config",
            "settings file to write; drops and tables are next to it",
            default=str(BEGUN),
        ),
        Option("--yes", "ask nothing and take every guess", kind="switch", default=False),
        *(
            Option(f"--{name.replace('_', '-')}", about, metavar=metavar)
            for name, metavar, about in (
                ("events", "TABLE", "the table of events: the name of its file or folder"),
                ("items", "TABLE", "the table of items, or none"),
                ("users", "TABLE", "the table of users, or none"),
                ("user", "COLUMN", "the column of the user"),
                ("item", "COLUMN", "the column of the item"),
                ("time", "COLUMN", "the column of the time"),
                ("time_format", "FORMAT", "iso, epoch_seconds, …, or a pattern such as dd.MM.yyyy HH:mm"),
                ("timezone", "ZONE", "the zone of times without an offset, such as Europe/Berlin"),
                ("folder_timezone", "ZONE", "the zone whose midnights cut the folders of days"),
                ("event_type", "COLUMN", "the column of the type of an event, or none"),
                ("session", "COLUMN", "the column of the session, or none"),
                ("label", "COLUMN", "the column of the label (0 or 1), or none"),
                ("where", "SQL", "which rows are events, as a condition over their columns, or none"),
                ("eligible", "SQL", "which items may be in lists, as a condition over item columns, or none"),
                ("encoding", "NAME", "the encoding of text, such as cp1252"),
                ("delimiter", "TEXT", "the text between two fields of CSV"),
                (
                    "header",
                    "NAMES",
                    "the names of the columns of CSV without a header, with commas between them",
                ),
            )
        ),
    ),
    """\
The command finds out how files are written and which columns are user, item, time, type, session and label.
It asks only what the data does not tell; each option below is such an answer. Without a terminal, or with
--yes, guesses are taken. Flat files are copied into daily drops next to the settings file, with their values
unchanged; folders SOURCE/ds=YYYY-MM-DD are read where they are. At the end the command reads one day by the
rules of ingest and prints the next commands. The exit code is 3 if that day has faults.""",
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


A_NIGHT, MODELS, AFTERWARDS, MACHINE = "A night", "Models", "Published nights", "Data and machine"

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
    "init": Command(INIT, "jobs.lime.init", MACHINE),
    "check": Command(CHECK, "jobs.lime.check", MACHINE),
}
