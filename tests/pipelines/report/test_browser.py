"""Headless Chromium shows the figures of the tables on a desktop and on a phone, in light and dark."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from playwright.sync_api import Browser

from pipelines.report.page import write_page
from pipelines.settings.night import ReportSettings
from pipelines.settings.settings import Settings
from pipelines.store.manifests import EvaluationManifest, PublishManifest
from tests.pipelines.report.browser import find_faults, open_chromium, open_page, read_table, shows
from tests.pipelines.report.warehouses import POLICY, SmallWarehouse, checks, scored_manifests

FIRST, SOUND, FAILED, STOPPED = "2024-04-30", "2024-05-01", "2024-05-02", "2024-05-03"
NIGHTS = (FIRST, SOUND, FAILED, STOPPED)
WIDTHS, SCHEMES = (1280, 360), ("light", "dark")
LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 4
NAMES = {
    "i0": "<script>alert('name')</script>", "i1": LONG, "i2": "חלב טרי 3% בקבוק", "i3": "حليب كامل الدسم",
    "i4": "<img src=x onerror=alert(1)>", "i5": " ", "i6": "{{ 7 * 7 }}", "i7": "👩‍👩‍👧 " * 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start one Chromium for all tests of this file."""
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return a warehouse of nights that went well and badly, full of values that could break a page."""
    small = SmallWarehouse(tmp_path_factory.mktemp("hostile"))
    small.add_items(NAMES, kind=dict.fromkeys(NAMES, "Ware"))
    lists = {"u1": list(NAMES), "<b>u2</b>": [], LONG: ["i0"] * 3, "مستخدم": ["i2", "unlisted" * 30]}
    found = [*checks(), *checks(short=float("nan"))[1:2]]
    small.publish(FIRST, lists)
    small.publish(SOUND, lists, base=f"{FIRST}.1", checks=found, compared_with=FIRST)
    for item in NAMES:
        small.buy("u1", item, "2024-04-29 10:00")
    row = {"policy": "all", "users": 6, "recall": 0.25, "recall_error": 0.01, "ndcg": 0.5, "hit_rate": 0.9}
    rows = [{**row, "model": name} for name in ("personal frequency", "lime-mha", LONG)]
    done = EvaluationManifest(night=SOUND, horizon_days=28, min_events=20, k=100, rows=rows)
    small.record(SOUND, f"{SOUND}.evaluate-demo", done)
    small.fail_audits(FAILED, {"u1": []}, checks(short=float("nan"), holds=False))
    small.lease(STOPPED, key="manual__2024-05-03T00:00:00+00:00")
    settings = small.settings.model_copy(update={"report": ReportSettings(item_name=["kind", "name"])})
    for night in NIGHTS:
        write_page(settings, night)
    return settings


def page_of(settings: Settings, name: str) -> Path:
    return Path(settings.warehouse) / "reports" / f"{name}.html"


def manifests(settings: Settings, run_id: str) -> dict[str, Any]:
    """Read the manifests of a run as plain JSON, by another path than the page does."""
    rows = DeltaTable(f"{settings.warehouse}/runs").to_pyarrow_table().to_pylist()
    return {row["job"]: json.loads(row["manifest"]) for row in rows if row["run_id"] == run_id}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_can_be_read(browser: Browser, hostile: Settings, width: int, scheme: str) -> None:
    for name in (*(f"night={night}" for night in NIGHTS), "index"):
        with open_page(browser, page_of(hostile, name), width, scheme) as page:
            assert find_faults(page) == [], name


@pytest.mark.parametrize("width", WIDTHS)
def test_the_figures_that_are_shown_are_those_of_the_tables(
    browser: Browser, hostile: Settings, width: int
) -> None:
    stored = manifests(hostile, f"{SOUND}.1")
    scored, audits = stored["score_candidates"], stored["audit_recommendations"]
    policy = scored["policies"]["all"]
    with open_page(browser, page_of(hostile, f"night={SOUND}"), width, "light") as page:
        counts, pairs = read_table(page, "counts"), read_table(page, "pairs")
        steps, shown = read_table(page, "steps"), read_table(page, "audits") | read_table(page, "rules")
        segments, forecast = read_table(page, "segments"), read_table(page, "forecast")
        tiles = page.locator(".tiles dd").all_inner_texts()
        certified = page.locator("#certified").inner_text()
    assert counts["Users with lists"] == [policy["users"]]
    assert counts["Cold users, who have no events"] == [stored["build_link_states"]["cold_users"]]
    assert counts["Candidates"] == [stored["build_candidate_bank"]["candidates"]]
    assert (pairs["Pairs scored"], pairs["Pairs avoided"]) == ([policy["pairs"]], [policy["pairs_avoided"]])
    named = {(c["name"], c["segment"]): [c["value"], c["limit"]] for c in audits["checks"][:4]}
    assert named == {
        (label.split(",")[0], "active" if "active" in label else "all"): values
        for label, values in shown.items()
        if label != "short_share"
    } | {("short_share", "all"): [0.0625, 0.1]}
    assert {name: values[:2] for name, values in segments.items()} == {
        name: [each["users"], each["users_with_shortfall"]] for name, each in audits["segments"].items()
    }
    assert segments["active"][2] == 1 - 0.875
    said = scored["forecast"]
    assert forecast["Time"] == [said["predicted_seconds"], said["actual_seconds"]]
    assert forecast["Cost"] == [said["cost"]]
    ran = {job: [each["seconds"]] for job, each in stored.items() if job in steps}
    assert ran == {job: values for job, values in steps.items() if job != "all steps"}
    assert steps["all steps"] == [sum(values[0] for values in ran.values())]
    assert certified == str(stored["verify_night"]["users"])
    assert tiles == ["7", "incremental", "exact", "5 passed", "25.2 s", "77.79 %"]


def test_a_value_that_is_no_number_is_said_in_words(browser: Browser, hostile: Settings) -> None:
    with open_page(browser, page_of(hostile, f"night={FAILED}"), 360, "dark") as page:
        assert page.locator("h1").inner_text().split() == ["✗", "Not", "published", "Night", FAILED]
        row = page.locator("#audits tbody tr").first
        assert row.locator("data").first.inner_text() == "not a number"
        assert "bad" in row.locator("td").first.get_attribute("class")
        assert page.get_by_text("The list is empty").count() == 1


def test_names_are_shown_as_text_and_in_their_direction(browser: Browser, hostile: Settings) -> None:
    with open_page(browser, page_of(hostile, f"night={SOUND}"), 1280, "light") as page:
        names = page.locator(".examples ol bdi").all_inner_texts()
        assert {f"Ware {NAMES[item]}" for item in ("i0", "i1", "i2", "i4", "i6")} <= set(names)
        assert page.locator("script, img").count() == 0
        assert page.locator("h2", has_text="Offline evaluation").count() == 1
        recalls = [values[1] for values in read_table(page, "evaluation1").values()]
        assert recalls == [0.25, 0.25, 0.25]


def test_a_night_without_a_certificate_says_so(browser: Browser, hostile: Settings) -> None:
    with open_page(browser, page_of(hostile, f"night={STOPPED}"), 360, "light") as page:
        assert page.get_by_text("The night has no certificate.").is_visible()
        assert page.locator(".tiles dd").all_inner_texts() == ["–", "–", "none", "–", "0.0 s", "–"]


def test_an_index_of_400_nights_links_to_pages_and_fits(browser: Browser, tmp_path: Path) -> None:
    small = SmallWarehouse(tmp_path)
    nights = [str(dt.date(2023, 1, 1) + dt.timedelta(days=each)) for each in range(400)]
    leases = [
        {"ds": dt.date.fromisoformat(night), "epoch": 1, "run_key": "nightly", "holder": "h"}
        for night in nights
    ]
    small.add("leases", leases)
    rows = []
    for night in nights:
        run_id = f"{night}.1"
        published = PublishManifest(run_id=run_id, policy="all", scoring=POLICY, seconds=2.5)
        rows += [
            {"run_id": run_id, "ds": dt.date.fromisoformat(night), "job": str(each.job),
             "seconds": each.seconds, "manifest": each.to_json()}
            for each in (*scored_manifests(None), published)
        ]  # fmt: skip
    small.add("runs", rows)
    index = write_page(small.settings, nights[-1]).parent / "index.html"
    for width in WIDTHS:
        with open_page(browser, index, width, "light") as page:
            assert find_faults(page) == []
            shown = page.locator("#nights tbody time:visible").all_inner_texts()
            assert [text for text in shown if len(text) == 10] == nights[::-1]
            assert read_table(page, "nights")[nights[7]] == [7, 1.25 + 2.25 + 3.25 + 4.25 + 2.5]
            links = [each.get_attribute("href") for each in page.locator("#nights a").all()]
            assert links == [f"night={nights[-1]}.html"]  # the only page that was written


BAD = """<!doctype html><html lang="en"><body style="background: #fff; margin: 0">
<h1>One</h1><h3>Three</h3>
<p style="color: #888; width: 3rem; overflow-wrap: anywhere">on 2024-05-01 at noon</p>
<p style="width: 2000px">wide</p><svg></svg>
<table id="t"><thead><tr><th scope="col"></th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>
<p>and</p><p>more</p></body></html>"""


def test_the_check_of_pages_finds_every_kind_of_fault(browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.set_content(BAD)
    found = find_faults(page)
    page.close()
    for part in (
        "overflow: the page has 2000 px", 'overflow: p "wide"', "contrast: 3.54 of p",
        "wrapped date: 2024-05-01", 'heading: h3 "Three" after level 1', "chart without a title",
        "table t: a column has no header", "table t: a row has no header", "table t: has no name",
    ):  # fmt: skip
        assert any(each.startswith(part) for each in found), (part, found)


def test_a_shown_number_must_have_the_digits_of_the_value() -> None:
    assert shows("12.50 %", 0.125)
    assert shows("2 min 05 s", 125.2)
    assert shows("2.4e-05", 0.0000237)
    assert not shows("12.51 %", 0.125)
    assert not shows("1,235", 1234)
    assert not shows("0.0001", 0.0003)
