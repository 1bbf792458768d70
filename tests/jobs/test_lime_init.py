"""`lime init` on the command line: its tables, its JSON, its questions, and a way to published lists."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from tests.conftest import ROOT
from tests.jobs.running_lime import lime
from tests.pipelines.onboard.layouts import KINDS, LAYOUTS, Size, write_days, write_millis, write_orders


def test_init_prints_what_it_found_and_the_next_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_orders(tmp_path)
    config = tmp_path / "own" / "lime.yaml"
    assert lime("init", str(tmp_path / "bestellungen.csv"), "--config", str(config), "--yes") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Rechnungsdatum" in said
    assert f"lime night --config {config} --ds 2024-04-10" in said
    assert "have a negative Menge: cancellations; they are left out" in said
    assert lime("init", str(tmp_path / "bestellungen.csv"), "--config", str(config)) == 3
    assert "is there already" in capsys.readouterr().err


def test_init_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = write_millis(tmp_path)
    config = tmp_path / "own" / "lime.yaml"
    options = ("--config", str(config), "--json", "--event-type", "none")
    assert lime("init", str(tmp_path / "events.parquet"), *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["written"], report["questions"]) == (answers.rows, answers.rows, 0)
    assert report["guesses"]["event_type"] == {"value": None, "why": "--event-type says so"}
    assert [command.split()[1] for command in report["next"]] == ["check", "ingest", "train", "night"]


def test_init_ends_with_3_and_lists_every_fault_of_the_day_that_it_tries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_days(tmp_path)
    for source, header, row in (
        ("events", "event_time|customer_id|product_id|session_id", "soon|c1|2|1"),
        ("items", "product|brand|price", "5|y|1.5"),
    ):
        folder = tmp_path / "landing" / source / "ds=2024-04-10"
        folder.mkdir()
        (folder / "part.csv").write_text("\n".join([header, *[row] * 20]) + "\n")
    assert (
        lime("init", str(tmp_path / "landing"), "--config", str(tmp_path / "own" / "lime.yaml"), "--yes") == 3
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "20 of 20 rows are bad" in said
    assert "20 unreadable_timestamp (part.csv line 2: 'soon')" in said
    assert (
        "the column 'product_id' (our item_id) is missing; the files have ['product', 'brand', 'price']"
        in said
    )


def test_a_person_is_asked_only_what_the_data_does_not_tell(tmp_path: Path) -> None:
    write_orders(tmp_path)
    config = tmp_path / "own" / "lime.yaml"
    command = [
        sys.executable,
        "-m",
        "jobs.lime",
        "init",
        str(tmp_path / "bestellungen.csv"),
        "--config",
        str(config),
    ]
    ours, theirs = pty.openpty()
    os.write(ours, b"Europe/Vienna\n\n")
    done = subprocess.run(
        command, stdin=theirs, capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--timezone") == 1
    assert done.stdout.count("--eligible") == 1
    text = config.read_text()
    assert "source_timezone: Europe/Vienna" in text
    assert "eligible: item_id NOT IN ('POST')" in text


@pytest.mark.operate
@pytest.mark.parametrize("name", ["orders", "days"])
def test_own_data_leads_to_published_lists_by_the_printed_commands(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands run as processes of their own, as a person would paste them."""
    write, place = LAYOUTS[name]
    write(tmp_path, Size(users=60, items=90, days=30))
    config = tmp_path / "own" / "lime.yaml"
    assert lime("init", str(tmp_path / place), "--config", str(config), "--json") == 0
    report = json.loads(capfd.readouterr().out)
    for command in report["next"]:
        words = shlex.split(command)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "jobs.lime", *words], capture_output=True, text=True, check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    page = next(line for line in done.stdout.splitlines() if line.startswith("The page of the night: "))
    assert "✓" in Path(page.partition(": ")[2]).read_text(encoding="utf-8")
    check_lists(tmp_path / "own" / "warehouse" / "recommendations")


def check_lists(table: Path) -> None:
    """Check that each of 60 users has a list without postage, mostly of the items of the user's own kind."""
    lists = DeltaTable(table).to_pyarrow_table().to_pylist()
    assert len({row["user_id"] for row in lists}) == len(lists) == 60
    own = []
    for row in lists:
        items = [str(candidate["item_id"]) for candidate in row["candidates"]]
        assert items
        assert "POST" not in items
        kind = (
            int(str(row["user_id"]).strip("c")) - (17850 if isinstance(row["user_id"], int) else 0)
        ) % KINDS
        own += [int(item.strip("A")) % KINDS == kind for item in items]
    assert sum(own) > 0.5 * len(own)  # by chance it is a sixth
