"""What is shown while a step works: plain lines in files, a live line on terminals, and Spark's tasks."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.progress import Lines, Ticker
from pipelines.store.progress import Progress, Tasks, count_tasks
from tests.jobs.running_lime import on_a_terminal_python

PATIENCE = 120  # seconds that only a hanging job takes
WORK = logging.getLogger("pipelines.a_room")


def collect(every: float = 0.0, *, keeps_log: bool = False) -> tuple[Ticker, list[str]]:
    """Return a ticker and the lines that it writes."""
    lines: list[str] = []
    return Ticker(Lines(lines.append, every, keeps_log=keeps_log)), lines


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    """Let loggers work at the level that jobs set."""
    caplog.set_level(logging.INFO)


def wait_for(lines: list[str], pattern: str) -> None:
    """Wait until one of the lines matches."""
    deadline = time.monotonic() + PATIENCE
    while not any(re.search(pattern, line) for line in list(lines)):
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)


def test_a_line_says_the_step_its_time_what_it_does_and_what_is_left() -> None:
    ticker, lines = collect()
    with ticker:
        ticker.begin("build_link_states", expected=1000.0)
        wait_for(lines, r"^build_link_states, \d+ s; about \d+ s left$")
        ticker.count = lambda: Tasks(3, 8, 0.5)
        WORK.info("events: reading %d files", 4)
        wait_for(lines, r"events: reading 4 files, 3 of 8 tasks; about \d+ s left$")
        ticker.begin("verify_night")
        wait_for(lines, r"^verify_night, \d+ s: 3 of 8 tasks$")
        logging.getLogger("lime_model.train.loop").info("towers step 3/9: 2.0 steps/s, 3 s left")
        wait_for(lines, r"towers step 3/9: 2.0 steps/s, 3 s left, 3 of 8 tasks$")
    assert not [each for each in logging.getLogger("pipelines").handlers if each is ticker]


def test_scoring_says_pairs_rate_and_seconds_between_its_commits(spark: SparkSession) -> None:
    ticker, lines = collect()
    work = Progress(spark.sparkContext, "night", 2, 4_000_000, forecast=500.0)
    with ticker:
        ticker.begin("score_candidates", expected=9.0)
        work.report(0)
        wait_for(lines, r"about 0 of 4,000,000 pairs, \d+ s left by the forecast$")
        ticker.count = lambda: Tasks(5, 10, 0.5)  # half of the first of two commits
        wait_for(lines, r"about 1,000,000 of 4,000,000 pairs, [\d.]+ M pairs/s, \d+ s left, 5 of 10 tasks$")
        work.report(2)
        wait_for(lines, r"2 of 2 commits, about 4,000,000 of 4,000,000 pairs, .* 0 s left, 5 of 10 tasks$")


def test_a_plan_is_kept_once_and_a_log_that_has_it_is_enough() -> None:
    for keeps_log, kept in ((False, ["incremental night"]), (True, [])):
        ticker, lines = collect(every=3600.0, keeps_log=keeps_log)
        with ticker:
            WORK.info("incremental night", extra={"plan": True})
            WORK.info("another line")
            WORK.warning("a warning is written anyway")
        assert lines == kept


def test_plain_lines_keep_their_distance() -> None:
    lines: list[str] = []
    often, seldom = Lines(lines.append, 0.0, keeps_log=True), Lines(lines.append, 3600.0, keeps_log=True)
    for number in range(3):
        often.show(f"often {number}")
        seldom.show(f"seldom {number}")
    assert lines == ["often 0", "often 1", "often 2"]
    seldom.last -= 3601
    seldom.show("after an hour")
    seldom.last -= 3601
    seldom.clear()  # other output is no silence
    seldom.show("at once")
    assert lines[3:] == ["after an hour"]


LIVE = """
import logging, sys, time
from jobs.lime.console import open_console
from jobs.logs import start_logs
from jobs.progress import LiveLine, Ticker, people_lines
start_logs(quiet=True)
sink = people_lines(open_console(stderr=True))
assert isinstance(sink, LiveLine)
with Ticker(sink) as ticker:
    ticker.begin("score_candidates")
    logging.getLogger("pipelines.x").info("first words")
    while sink.live is None:
        time.sleep(0.05)
    logging.getLogger("pipelines.x").warning("a warning")
    logging.getLogger("pipelines.x").info("full night", extra={"plan": True})
    ticker.pause()
    assert sink.live is None
print("the end")
"""


def test_on_a_terminal_one_line_is_drawn_again_and_removed() -> None:
    said = on_a_terminal_python("-c", LIVE)
    assert re.search(r"score_candidates, \d+ s: first words", said)
    shown = [line.split("\r")[-1] for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).splitlines()]
    assert any("a warning" in line and "score_candidates" not in line for line in shown)
    assert any(line.strip() == "full night" for line in shown)
    assert shown[-1].strip() == "the end"


@pytest.fixture
def held(spark: SparkSession, tmp_path: Path) -> Iterator[Path]:
    """Start a Spark job of two tasks, one of which waits for a file; return the file."""
    gate = tmp_path / "gate"

    def wait(index: int) -> None:
        while index and not os.path.exists(gate):
            time.sleep(0.05)

    work = threading.Thread(target=lambda: spark.sparkContext.parallelize([0, 1], 2).foreach(wait))
    work.start()
    yield gate
    gate.touch()
    work.join(PATIENCE)
    assert not work.is_alive()


def test_the_tasks_of_running_jobs_are_counted(spark: SparkSession, held: Path) -> None:
    tracker = spark.sparkContext.statusTracker()
    deadline = time.monotonic() + PATIENCE
    while count_tasks(tracker) != Tasks(1, 2, 0.5):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    held.touch()
    while count_tasks(tracker) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
