"""The frame of every job: the session, the checks, the lease, and how the job ends.

    python jobs/<name>.py --config conf/local.yaml --ds YYYY-MM-DD [--run-key KEY]

The exit code is 0 only when the job's rows are committed; see `endings.py` for the other codes.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

import psutil
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from structlog.contextvars import bind_contextvars

from jobs.arguments import add_option, parser
from jobs.endings import Ending
from jobs.logs import start_logs
from jobs.options import RESULT, Definition
from jobs.orphans import end_with_submitter
from jobs.output import Output, Result, ScriptOutput
from lime_model.errors import LimeError
from pipelines.errors.explain import explain
from pipelines.settings.checks import check_night
from pipelines.settings.settings import Settings, load_settings
from pipelines.steps import UDF_STEPS, Job
from pipelines.store.leases import Run, acquire_lease, check_lease
from pipelines.store.manifests import EXPORTED_NOWHERE, ExportManifest
from pipelines.store.session import open_session, start_workers
from pipelines.store.tables import Warehouse


class DriverLost(LimeError):
    """The JVM of this driver has died: it was killed, or ran out of memory."""

    remedy = "retry"

    def __init__(self) -> None:
        super().__init__(
            "the JVM of this driver ended (killed, or out of memory?); what is committed stays: "
            "run the job again, with more spark.driver.memory if it was memory"
        )


def parse(definition: Definition) -> argparse.Namespace:
    """Parse the command line of a script; `output` of the result prints what the job does."""
    options = parser(definition.name, definition.describe())
    for option in definition.options:
        add_option(options, option)
    args = options.parse_args()
    if problem := definition.problem(args):
        options.error(problem)
    args.output = ScriptOutput(vars(args).pop(RESULT.dest))
    return args


def run_job(definition: Definition) -> int:
    """Run the job that is one step of a night; return its exit code."""
    return run_steps(parse(definition), [Job(definition.name)], job=definition.name)


def run_steps(args: argparse.Namespace, steps: Sequence[Job], *, job: str) -> int:
    """Run steps of a night in one Spark session; return the exit code.

    Args:
        args: the parsed command line of a night's job.
        steps: names of the steps, in the order in which they run.
        job: the name of the job in its log and output.
    """

    def work(warehouse: Warehouse) -> None:
        from pipelines.night import STEPS, expect_seconds  # loaded by now, see _run
        from pipelines.night_checks import check_steps

        check_steps(warehouse, args.ds, args.run_key, steps)
        run = take_night(warehouse, args.ds, args.run_key)
        expected, why = expect_seconds(warehouse, run, steps)
        args.output.expect(expected, why)
        for step in steps:
            bind_contextvars(job=step)
            args.output.ticker.begin(step, expected.get(step))
            args.output.result(step, STEPS[step](warehouse, check_lease(warehouse, run)))

    def check(settings: Settings) -> ExportManifest | None:
        check_night(settings)
        exports = list(steps) != [Job.EXPORT_RECOMMENDATIONS] or any(place for _, place in settings.export)
        return None if exports else ExportManifest(exported=EXPORTED_NOWHERE)

    return with_warehouse(args, work, job=job, check=check, udfs=bool(UDF_STEPS & set(steps)))


def take_night(warehouse: Warehouse, night: str, key: str) -> Run:
    """Acquire the lease of a night (see `acquire_lease`); the log lines from here on carry its run.

    Args:
        warehouse: the warehouse of the night.
        night: the night, as an ISO date.
        key: the run key.
    """
    run = acquire_lease(warehouse, night, key)
    bind_contextvars(run=run.run_id)
    return run


def with_warehouse(
    args: argparse.Namespace,
    work: Callable[[Warehouse], None],
    *,
    job: str,
    night: str | None = None,
    check: Callable[[Settings], Result | None] | None = None,
    udfs: bool = False,
) -> int:
    """Open the warehouse, do the work, and end as `endings.py` says; return the exit code.

    Args:
        args: the parsed command line, with `config`, `verbose`, `output` and, unless `night` is given, `ds`.
        work: what the job does.
        job: the name of the job.
        night: the night or day that names the job in the log (default: `args.ds`).
        check: a check of the settings that runs before Spark starts; if it returns a result, nothing is left
            to do, and Spark does not start.
        udfs: whether the work runs UDFs, so that the daemon of Spark's Python workers starts early.
    """
    app = f"{job} {night or args.ds}"
    start_logs(quiet=not (args.verbose or args.output.ticker.sink.keeps_log), job=job, night=night or args.ds)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _stop)
    end_with_submitter()
    with Ending(verbose=args.verbose) as ending:
        settings = load_settings(args.config)
        found = check(settings) if check else None
        args.output.start(settings)
        if found is None:
            with args.output.ticker:
                _run(settings, work, app, args.output, udfs=udfs, verbose=args.verbose)
        else:
            args.output.result(job, found)
        args.output.finish(app, time.monotonic() - started)
    if ending.code:
        args.output.fail(ending.code, ending.lines)
    return ending.code


def _run(
    settings: Settings,
    work: Callable[[Warehouse], None],
    app: str,
    output: Output,
    *,
    udfs: bool,
    verbose: bool,
) -> None:
    """Do the work in a Spark session of its own.

    Args:
        settings: the settings of the session.
        work: what the job does.
        app: the name of the job and of its night.
        output: shows what the application does; it needs the session for that.
        udfs: whether the daemon of Spark's Python workers starts early.
        verbose: whether Spark logs the stack trace of every error.
    """
    # Importing torch takes seconds, and so does starting a JVM: let the two overlap.
    threading.Thread(target=importlib.import_module, args=("pipelines.night",), daemon=True).start()
    try:
        spark = open_session(settings, app, verbose=verbose)
    except SystemExit:
        for child in psutil.Process().children():  # a JVM that is still starting would wait for its driver
            child.kill()
        raise
    output.session(spark)
    output.ticker.begin(app)
    output.ticker.watch(spark.sparkContext)
    if udfs:  # the daemon of the workers also takes seconds: it loads torch before it forks
        threading.Thread(target=_warm_up, args=(spark,), daemon=True).start()
    try:
        work(Warehouse(spark, settings))
    except BaseException as error:
        if left := exit_behind(error):
            raise left from None  # a call was cut off, so the JVM no longer answers; it stops by itself
        known = explain(error)  # while the JVM still answers
        try:
            spark.stop()
        except (Py4JError, OSError):
            raise DriverLost from error
        if known is not None and known is not error:
            raise known from error
        raise
    spark.stop()


def _warm_up(spark: SparkSession) -> None:
    """Start the daemon of the Python workers; if it cannot start, the work itself fails and says why."""
    with suppress(PySparkException, Py4JError, OSError):
        start_workers(spark)


def exit_behind(error: BaseException | None) -> SystemExit | None:
    """Return the SIGTERM that an error followed: cleanup may fail if a call to the JVM was cut off."""
    while error is not None and not isinstance(error, SystemExit):
        error = error.__context__
    return error


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a SIGTERM of the scheduler: print a line and exit."""
    line = "stopped by SIGTERM; what is committed stays, a rerun does the rest"
    print(line, file=sys.stderr, flush=True)
    sys.exit(128 + number)
