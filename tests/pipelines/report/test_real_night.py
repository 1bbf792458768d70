"""The page and the status of a night that Spark has really run hold the figures of its tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.report.page import write_page
from pipelines.report.status import read_status
from pipelines.store.leases import Run
from pipelines.store.manifests import AuditManifest, CertificateManifest, ScoreManifest, StatesManifest
from pipelines.store.runs import need_manifest
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.nights import lists_of
from tests.pipelines.report.browser import find_faults, open_chromium, open_page, read_table
from tests.pipelines.report.pages import Page

pytestmark = pytest.mark.operate  # each needs a whole night


def test_the_page_of_a_real_night_holds_the_figures_of_its_tables(
    published: tuple[Warehouse, Run], tmp_path: Path
) -> None:
    warehouse, run = published
    page = Page(_write(warehouse, tmp_path))
    audits = need_manifest(warehouse, run, AuditManifest)
    shown = [(cells[1], *values) for table in ("audits", "rules") for cells, values in _rows(page, table)]
    names = {"all": "", "active": ",active users", "idle": ",idle users", "cold": ",cold users"}
    assert sorted(shown) == sorted((f"{c.name}{names[c.segment]}", c.value, c.limit) for c in audits.checks)
    assert sum(each.users for each in audits.segments.values()) == shop.USERS
    assert [(cells[0], values[0]) for cells, values in _rows(page, "segments")] == [
        (name, each.users) for name, each in audits.segments.items()
    ]
    states = need_manifest(warehouse, run, StatesManifest)
    scored = need_manifest(warehouse, run, ScoreManifest)
    assert page.row("counts", "Users with lists")[1] == [shop.USERS]
    assert page.row("counts", "Cold users, who have no events")[1] == [states.cold_users]
    assert page.row("pairs", "Pairs scored")[1] == [scored.policies["all"].pairs]
    assert page.row("steps", "score_candidates")[1] == [scored.seconds]
    lists = lists_of(warehouse)
    users = [int(text) for text in page.bdi if page.source.count(f"User <bdi>{text}</bdi>")]
    first = next(user for user in users if user in lists)
    place = page.source.index(f"User <bdi>{first}</bdi>")
    items = page.source[place:].split("<ol>")[1].split("</ol>")[0].split("<bdi>")[1:]
    assert [int(each.split("</bdi>")[0]) for each in items] == [item for item, _ in lists[first]]


def test_chromium_shows_a_real_night_as_it_is_stored(
    published: tuple[Warehouse, Run], tmp_path: Path
) -> None:
    warehouse, run = published
    scored = need_manifest(warehouse, run, ScoreManifest)
    path = _write(warehouse, tmp_path)
    with open_chromium() as browser, open_page(browser, path, 360, "dark") as page:
        assert find_faults(page) == []
        assert read_table(page, "counts")["Users with lists"] == [shop.USERS]
        assert read_table(page, "steps")["score_candidates"] == [scored.seconds]


def _write(warehouse: Warehouse, folder: Path) -> Path:
    """Write the page of the night into a copy of the warehouse, in whose folder pages lie."""
    shutil.copytree(warehouse.settings.warehouse, folder / "warehouse")
    settings = warehouse.settings.model_copy(update={"warehouse": str(folder / "warehouse")})
    return write_page(settings, shop.NIGHT)


def test_the_status_of_a_real_night_holds_the_figures_of_its_tables(published: tuple[Warehouse, Run]) -> None:
    warehouse, run = published
    status = read_status(warehouse.settings)
    report = next(each for each in status.nights if each.night == shop.NIGHT)
    assert (report.verdict, report.in_force, report.run_key) == ("published", run.run_id, "first")
    assert report.certificate == need_manifest(warehouse, run, CertificateManifest)
    assert report.full is True
    assert {each.model for each in status.champions} == {"mha", "xor"}
    files = {path.rsplit("/", 1)[-1] for path in warehouse.read("recommendations").inputFiles()}
    folder = Path(warehouse.path("recommendations").removeprefix("file:"))
    sizes = {table.name: (table.files, table.bytes) for table in status.tables}
    assert sizes["recommendations"] == (
        len(files),
        sum(path.stat().st_size for path in folder.rglob("*.parquet") if path.name in files),
    )


def _rows(page: Page, table: str) -> list[tuple[list[str], list[float]]]:
    """Return cells and values of a table, without its head."""
    return list(zip(page.tables[table], page.values[table], strict=True))[1:]
