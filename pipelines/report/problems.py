"""Find what is wrong with the last nights of a warehouse, each with the command that mends it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from lime_model.scoring.native import why_not
from pipelines.report.facts import Champion, Export, Problem
from pipelines.report.night_report import NightReport, run_steps_command
from pipelines.report.schedule import find_missing
from pipelines.settings.settings import Settings

OLD_CHAMPION = 28  # days; `weekly_training` challenges a champion every week


def find_problems(
    settings: Settings,
    nights: Sequence[NightReport],
    champions: Sequence[Champion],
    exports: Sequence[Export],
) -> list[Problem]:
    """Find what is wrong, faults first.

    Args:
        settings: the settings of the warehouse.
        nights: the last nights, the newest first; at least one.
        champions: the champions of the newest night.
        exports: the newest export to each place of the settings.
    """
    found = [
        *_of_nights(nights),
        *_missing_nights(nights),
        *_of_exports(nights, exports),
        *_of_champions(settings, nights, champions),
        *_of_kernel(settings),
    ]
    return sorted(found, key=lambda problem: problem.level != "fault")


def _of_nights(nights: Sequence[NightReport]) -> Iterator[Problem]:
    for report in nights:
        if report.verdict in ("disproved", "not published"):
            yield Problem("fault", f"Night {report.night}: {report.sentence}", report.remedy)
        if report.verdict == "taken back":
            yield Problem("warning", f"Night {report.night}: {report.sentence}", report.remedy)
        if report.later_run:
            again = f"Read the log of that step, then go on with lime night --ds {report.night}"
            yield Problem(
                "warning", f"Night {report.night}: {report.later_run}", f"{again} and its --run-key"
            )


def _missing_nights(nights: Sequence[NightReport]) -> Iterator[Problem]:
    """Find the nights that the usual schedule has between these nights and that no run has taken."""
    for lost in find_missing([dt.date.fromisoformat(report.night) for report in reversed(nights)]):
        first, last = lost[0], lost[-1]
        if len(lost) == 1:
            yield Problem("fault", f"Night {first} is missing: no run took it.", _run(f"{first}"))
        else:
            many = f"The {len(lost)} nights from {first} to {last} are missing: no run took them."
            yield Problem("fault", many, f"{_run(f'{first}')}, and the same for each later one up to {last}")


def _run(night: str) -> str:
    return f"Run it with {run_steps_command(night, 'again')}"


def _of_exports(nights: Sequence[NightReport], exports: Sequence[Export]) -> Iterator[Problem]:
    """Find places that do not have the newest published night."""
    newest = next((report for report in nights if report.verdict == "published" and report.in_force), None)
    if newest is None:
        return
    for export in exports:
        if newest.in_force != export.run_id:
            was = (
                f"the newest export there is run {export.run_id}"
                if export.run_id
                else "nothing was exported yet"
            )
            yield Problem(
                "fault",
                f"export.{export.place} does not have run {newest.in_force} of night {newest.night}: {was}.",
                f"Export it with lime export --ds {newest.night}",
            )


def _of_champions(
    settings: Settings, nights: Sequence[NightReport], champions: Sequence[Champion]
) -> Iterator[Problem]:
    for champion in champions:
        if champion.model == settings.night.model and champion.age_days > OLD_CHAMPION:
            yield Problem(
                "warning",
                f"The champion {champion.model_version} of model {champion.model} is {champion.age_days} "
                f"days old (since {champion.since}); more than {OLD_CHAMPION} days is old.",
                f"Challenge it with lime challenge --ds {nights[0].night}",
            )


def _of_kernel(settings: Settings) -> Iterator[Problem]:
    """Warn if this machine can't run the native kernel that the settings allow."""
    if settings.night.backend == "auto" or settings.night.backend.startswith("native"):
        why = why_not()
        if why:
            yield Problem(
                "warning",
                f"The native kernel does not run on this machine: {why}.",
                "Build it with make setup; machines without it score with another backend, more slowly",
            )
