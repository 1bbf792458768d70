"""The page of a night says what the tables hold, whatever happened to the night."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.report.page import write_page
from pipelines.report.samples import USERS, show_id
from pipelines.report.sparkline import draw_sparkline
from pipelines.report.tables import ReportError
from pipelines.settings.night import ReportSettings
from pipelines.store.manifests import EvaluationManifest
from tests.pipelines.report.pages import Page
from tests.pipelines.report.warehouses import SmallWarehouse, checks

ROOT = Path(__file__).resolve().parents[3]
NIGHT, NEXT = "2024-05-01", "2024-05-02"
AS_SHOWN = {"jaccard": "jaccard,active users"}
LISTS = {f"u{i}": [f"i{i}", f"i{i + 1}", "i9"] for i in range(5)}


@pytest.fixture
def small(tmp_path: Path) -> SmallWarehouse:
    """Return a warehouse with one published night."""
    warehouse = SmallWarehouse(tmp_path)
    warehouse.publish(NIGHT, LISTS)
    return warehouse


def test_figures_on_the_page_are_those_of_the_tables(small: SmallWarehouse) -> None:
    small.publish(NEXT, LISTS, base=f"{NIGHT}.1", checks=checks(short=0.03125))
    small.buy("u1", "i1", f"{NIGHT} 10:00")
    small.buy("u1", "i7", "2024-04-10 10:00")
    small.buy("u1", "i8", f"{NEXT} 00:00")  # at the night itself, so too late for it
    page = Page(write_page(small.settings, NEXT))
    tables = {"certificate": "rules"}
    for check in checks(short=0.03125):
        cells, values = page.row(tables.get(check.name, "audits"), AS_SHOWN.get(check.name, check.name))
        assert (cells[0], values) == ("✓passed", [check.value, check.limit])
    assert "short_share is 0.03125, limit ≤ 0.1; values of 1 earlier night: 0.0625" in page.words
    counts = {
        "Users with lists": 7, "Cold users, who have no events": 1, "Events in the histories": 99,
        "Candidates": 120, "Coverage: share of the eligible items that are in a list": 0.75,
    }  # fmt: skip
    assert {label: page.row("counts", label)[1] for label in counts} == {k: [v] for k, v in counts.items()}
    pairs = {
        "Pairs scored": 1234, "Pairs avoided": 4321, "Share of pairs avoided": 4321 / 5555,
        "Users whose lists were taken over": 2,
    }  # fmt: skip
    assert {label: page.row("pairs", label)[1] for label in pairs} == {k: [v] for k, v in pairs.items()}
    assert [(cells[0], values) for cells, values in _rows(page, "segments")] == [
        ("cold", [1, 1]),
        ("active", [4, 0, 0.125]),
        ("idle", [2, 0]),
    ]
    steps = {
        cells[0]: values for cells, values in zip(page.tables["steps"], page.values["steps"], strict=True)
    }
    assert steps["score_candidates"] == [4.25]
    assert steps["all steps"] == [1.25 + 2.25 + 3.25 + 4.25 + 6.5 + 5.25 + 2.5]
    assert "export_recommendations" not in steps  # the settings name no export
    assert f"incremental night: from run {NIGHT}.1" in page.words
    assert [(cells[0], values) for cells, values in _rows(page, "forecast")] == [
        ("Time", [3.5, 3.0]),
        ("Cost", [0.0125]),  # the forecast itself was not recorded
        ("Cost of a million pairs", [2.5]),
    ]
    mine = page.bdi[page.bdi.index("u1") :]
    assert mine[:6] == ["u1", "i1", "i7", "i1", "i2", "i9"]  # what they took last, then the list
    assert [user for user in page.bdi if user in LISTS] == list(LISTS)
    assert page.source.count("again</span>") == 1


def _rows(page: Page, table: str) -> list[tuple[list[str], list[float]]]:
    """Return cells and values of a table, without its head."""
    return list(zip(page.tables[table], page.values[table], strict=True))[1:]


def test_a_night_that_failed_its_audits_has_a_page_that_says_so_first(small: SmallWarehouse) -> None:
    small.fail_audits(NEXT, {"u1": ["i1"]}, checks(short=0.4, holds=False))
    page = Page(write_page(small.settings, NEXT))
    assert "short_share is 0.4, limit ≤ 0.1" in page.words.split("What ran")[0]
    assert page.tables["audits"][1][:2] == ["✗failed", "short_share"]
    assert f"audits.overrides (night: {NEXT}, check: short_share, reason: …)" in page.words
    assert "1 staged list," in page.words
    assert page.row("steps", "publish_recommendations")[0][1] == "not done"
    index = Page(page_folder(small) / "index.html")
    assert [cells[:2] for cells in index.tables["nights"][1:]] == [
        [NEXT, "not published"],
        [NIGHT, "published"],
    ]
    links = [known["href"] for tag, known in index.tags if tag == "a"]
    assert links == [f"night={NEXT}.html"]  # the page of the other night was never written


def page_folder(warehouse: SmallWarehouse) -> Path:
    return Path(warehouse.settings.warehouse) / "reports"


def test_a_night_that_stopped_at_its_first_step_has_a_page(small: SmallWarehouse) -> None:
    small.lease(NEXT, key="manual__2024-05-02T00:00:00+00:00")
    page = Page(write_page(small.settings, NEXT))
    assert "has not finished the step ingest_events" in page.words
    assert "lime night --ds 2024-05-02 --run-key manual__2024-05-02T00:00:00+00:00" in page.words
    assert "The night was not audited." in page.words
    assert "No lists of the night are in force or staged." in page.words


ODD = (
    "<script>alert(1)</script>", "a&amp;b", "\"quoted' `x`", "👩‍👩‍👧 café", "שלום עולם", "x\u202egnp.exe",
    "tab\tline\nend\0\x7f", "{{ 7 * 7 }}", "-->]]><!--", " ", "x" * 400,
)  # fmt: skip


def test_ids_and_names_may_hold_any_character(tmp_path: Path) -> None:
    warehouse = SmallWarehouse(tmp_path)
    warehouse.add_items({item: f"<b>{item}</b>" for item in ODD[:5]})
    for place in range(0, len(ODD), USERS):
        night = f"2024-05-{place + 1:02d}"
        users = ODD[place : place + USERS]
        warehouse.publish(night, {user: list(ODD) for user in users})
        page = Page(write_page(warehouse.settings, night))
        names = [show_id(f"<b>{item}</b>") for item in ODD[:5]] + [show_id(item) for item in ODD[5:]]
        shown = page.bdi[page.bdi.index(show_id(sorted(users)[0])) :]
        assert shown[:11] == [show_id(sorted(users)[0]), *names[:10]]
        assert {show_id(user) for user in users} <= set(page.bdi)
        assert {tag for tag, _ in page.tags} & {"script", "b", "img", "iframe"} == set()
        assert "\u202e" not in page.source
        assert "\0" not in page.source


def test_the_settings_say_which_columns_name_an_item(small: SmallWarehouse) -> None:
    names = {"i1": "by hand", "i2": "ignored"}
    small.add_items(names, kind={"i1": "Milk", "i2": "Bread"}, size={"i1": "1 l", "i2": " ", "i9": " "})
    settings = small.settings.model_copy(update={"report": ReportSettings(item_name=["kind", "size"])})
    page = Page(write_page(settings, NIGHT))
    mine = page.bdi[page.bdi.index("u1") :]
    assert mine[:4] == ["u1", "Milk 1 l", "Bread", "i9"]
    assert '<span class="id" dir="auto">i1</span>' in page.source
    by_default = Page(write_page(small.settings, NIGHT)).bdi
    assert by_default[by_default.index("u1") :][:3] == ["u1", "by hand", "ignored"]


def test_an_evaluation_and_a_forecast_that_was_priced_are_shown(small: SmallWarehouse) -> None:
    row = {"model": "mha", "policy": "all", "users": 6, "recall": 0.25, "recall_error": 0.01, "ndcg": 0.5}
    worse = {**row, "model": "popularity", "recall": 0.125}
    labels = {"model": "xor", "policy": "labels", "users": 6, "auc": 0.75}
    done = EvaluationManifest(night=NIGHT, horizon_days=28, min_events=20, k=100, rows=[worse, row, labels])
    small.record(NIGHT, f"{NIGHT}.evaluate-demo", done)
    page = Page(write_page(small.settings, NIGHT))
    shown = [(cells[0], values) for cells, values in _rows(page, "evaluation1")]
    assert shown == [
        ("mha", [6, 0.25, 0.01, 0.5]),
        ("popularity", [6, 0.125, 0.01, 0.5]),
        ("xor", [6, 0.75]),
    ]
    assert "in the 28 days after it" in page.words


def test_ids_are_shown_as_they_are_unless_that_would_mislead() -> None:
    assert show_id("שלום 👩‍👧") == "שלום 👩‍👧"
    assert show_id("a\n\t\0b\x7f") == "a\\n\\t\\x00b\\x7f"
    assert show_id("x\u202egnp") == "x\\u202egnp"
    assert show_id(42) == "42"


def test_a_page_needs_nothing_else_and_can_be_read_aloud(small: SmallWarehouse) -> None:
    page = Page(write_page(small.settings, NIGHT))
    assert page.open == []  # all elements are closed
    links = [known["href"] for tag, known in page.tags if tag == "a"]
    assert links == ["index.html"]
    assert not [tag for tag, known in page.tags if tag in ("link", "script", "img") or "src" in known]
    assert "url(" not in page.source
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert all(known.get("scope") in ("col", "row") for tag, known in page.tags if tag == "th")
    after_svg = [page.tags[i + 1][0] for i, (tag, _) in enumerate(page.tags) if tag == "svg"]
    assert set(after_svg) == {"title"}
    assert ("html", {"lang": "en"}) in page.tags


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_have_contrast_in_light_and_dark(scheme: int) -> None:
    css = (ROOT / "pipelines" / "report" / "page.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w+)", block))
    for name in ("text", "soft", "link", "good", "bad", "warn", "line"):
        for ground in ("back", "panel"):
            high, low = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG."""
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_page_opens_no_file_of_other_nights(small: SmallWarehouse) -> None:
    small.publish(NEXT, {"u1": ["i1"]})
    for old in (Path(small.settings.warehouse) / "recommendations" / f"ds={NIGHT}").glob("*.parquet"):
        old.unlink()
    assert "u1" in Page(write_page(small.settings, NEXT)).bdi
    with pytest.raises(ReportError, match=r"recommendations can't be read without Spark: .+; check the path"):
        write_page(small.settings, NIGHT)


def test_a_page_that_cannot_be_written_says_why(small: SmallWarehouse) -> None:
    with pytest.raises(
        ReportError, match=r"no run has taken night 2030-01-01 .*: it records 1, from 2024-05-01"
    ):
        write_page(small.settings, "2030-01-01")
    away = small.settings.model_copy(update={"warehouse": "s3a://lake/lime"})
    with pytest.raises(ReportError, match=r"the warehouse s3a://lake/lime is not in a local folder"):
        write_page(away, NIGHT)
    page_folder(small).write_text("a file where the folder should be")
    with pytest.raises(ReportError, match=r"reports/night=2024-05-01.html can't be written: .+; check space"):
        write_page(small.settings, NIGHT)


def test_a_file_uri_names_a_local_warehouse(small: SmallWarehouse) -> None:
    uri = Path(small.settings.warehouse).as_uri()
    page = write_page(small.settings.model_copy(update={"warehouse": uri}), NIGHT)
    assert page == page_folder(small) / f"night={NIGHT}.html"


def test_the_job_writes_the_page_and_prints_its_path(small: SmallWarehouse) -> None:
    command = [sys.executable, "jobs/report_night.py", "--config", str(small.path), "--ds", NIGHT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout.splitlines()[0].removeprefix("report_night "))
    assert said == {"page": str(page_folder(small) / f"night={NIGHT}.html")}


def test_a_sparkline_places_values_between_the_edges() -> None:
    points = re.findall(r'points="([^"]*)"', draw_sparkline([0.0, 5.0, 10.0], 20.0, "t"))[0]
    assert points == "3.0,25.0 60.0,19.5 117.0,14.0"  # the limit is at the upper edge
    far = draw_sparkline([0.0, 10.0], 1e9, "t")
    assert ('class="limit"' in far, 'points="3.0,25.0 117.0,3.0"' in far) == (False, True)
    gap = draw_sparkline([1.0, float("nan"), 3.0], float("inf"), "<t>")
    assert 'points="3.0,25.0 117.0,3.0"' in gap
    assert "<title>&lt;t&gt;</title>" in gap
    assert 'points=""' in draw_sparkline([float("nan")], 1.0, "t")
    assert 'points="60.0,14.0"' in draw_sparkline([4.0], 100.0, "t")
