"""What every job shares: the command line, the session, the lease, and how it ends.

    python jobs/<name>.py --config conf/local.yaml --ds YYYY-MM-DD [--run-key KEY]

Exit 0 only when the job's rows are committed; 1 with one `error:` line for what an operator
can mend; 143 after SIGTERM; a traceback for a bug.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

import psutil
from py4j.protocol import Py4JError
from structlog.contextvars import bind_contextvars

from jobs.logs import start_logs
from jobs.orphans import end_with_submitter
from lime_model.errors import LimeError
from pipelines.leases import Run, acquire_lease, check_lease
from pipelines.plan import UDF_STEPS
from pipelines.runs import Manifest
from pipelines.session import open_session, start_workers
from pipelines.settings import load_settings
from pipelines.tables import Warehouse
from pipelines.worker_errors import worker_errors

log = logging.getLogger(__name__)


class DriverLost(LimeError):
    """The JVM beside this Python has died: out of memory, or killed."""

    def __init__(self) -> None:
        super().__init__(
            "the JVM of this driver ended (killed, or out of memory?); what is committed stays: "
            "run the job again, with more spark.driver.memory if it was memory"
        )


def night_date(text: str) -> str:
    """An ISO date, or argparse's error."""
    try:
        return str(dt.date.fromisoformat(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2017-12-04") from error


def parser(job: str, about: str) -> argparse.ArgumentParser:
    """The options every job has."""
    options = argparse.ArgumentParser(prog=f"jobs/{job}.py", description=about)
    options.add_argument("--config", required=True, help="settings file, such as conf/local.yaml")
    return options


def night_options(options: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of the jobs of a night."""
    options.add_argument(
        "--ds", required=True, type=night_date, help="the night: events before this UTC day count"
    )
    options.add_argument(
        "--run-key",
        default="manual",
        help="names the run; the same key resumes it, a new key takes the night over (default: %(default)s)",
    )
    return options


def run_steps(steps: Sequence[str], about: str, argv: Sequence[str] | None = None) -> int:
    """Run steps of a night in one Spark session."""
    job = steps[0] if len(steps) == 1 else "run_steps"
    args = night_options(parser(job, about)).parse_args(argv)

    def work(warehouse: Warehouse) -> None:
        from pipelines.night import STEPS  # by now loaded, see with_warehouse

        run = take_night(warehouse, args.ds, args.run_key)
        for step in steps:
            bind_contextvars(job=step)
            report(step, STEPS[step](warehouse, check_lease(warehouse, run)))

    return with_warehouse(args.config, work, job=job, night=args.ds, udfs=bool(UDF_STEPS & set(steps)))


def take_night(warehouse: Warehouse, night: str, key: str) -> Run:
    """The run of `key` for a night (see `acquire_lease`); log lines from here on carry it."""
    run = acquire_lease(warehouse, night, key)
    bind_contextvars(run=run.run_id)
    return run


def with_warehouse(
    config: str, work: Callable[[Warehouse], None], *, job: str, night: str, udfs: bool = False
) -> int:
    """Open the warehouse, do the work, and turn mendable errors into one line and exit 1.

    `udfs`: the work runs UDFs, so start the workers' daemon beside it.
    """
    start_logs(job=job, night=night)
    app = f"{job} {night}"
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _stop)
    end_with_submitter()
    try:
        settings = load_settings(config)
        # Importing torch takes seconds, and so does a JVM: let them overlap.
        threading.Thread(target=importlib.import_module, args=("pipelines.night",), daemon=True).start()
        try:
            spark = open_session(settings, app)
        except SystemExit:
            for child in psutil.Process().children():  # a JVM that is starting would wait for its driver
                child.kill()
            raise
        if udfs:  # likewise the workers' daemon, which loads torch before it forks
            threading.Thread(target=start_workers, args=(spark,), daemon=True).start()
        try:
            with worker_errors():
                work(Warehouse(spark, settings))
        except BaseException as error:
            if isinstance(error, LimeError):
                log.error("%s: %s", type(error).__name__, error)  # with run, night and job
            if left := exit_behind(error):
                raise left from None  # in a call to the JVM, which now answers nothing; it stops by itself
            try:
                spark.stop()
            except (Py4JError, OSError):
                raise DriverLost from error
            raise
        spark.stop()
    except LimeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"{app}: done in {time.monotonic() - started:.1f} s", flush=True)
    return 0


def exit_behind(error: BaseException | None) -> SystemExit | None:
    """The SIGTERM that an error came after: what cleans up may fail on a JVM that was cut off mid-call."""
    while error is not None and not isinstance(error, SystemExit):
        error = error.__context__
    return error


def _stop(number: int, frame: FrameType | None) -> None:
    """A scheduler's SIGTERM: say so and leave."""
    said = "stopped by SIGTERM; what is committed stays, a rerun takes up the rest"
    print(said, file=sys.stderr, flush=True)
    sys.exit(128 + number)


def report(step: str, manifest: Manifest) -> None:
    """One JSON line per finished step, for people and log scrapers."""
    print(f"{step} {json.dumps(manifest, default=str)}", flush=True)
