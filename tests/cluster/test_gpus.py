"""GPUs on workers that declare them: each task gets its own, and a missing GPU is an error in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import ROOT, Cluster, standalone

pytestmark = pytest.mark.cluster
GPUS = {"spark.executor.resource.gpu.amount": "1"}
CORES = 2  # cores of a worker; they outnumber its GPUs, so that cores alone would let tasks share a GPU


@pytest.fixture(scope="module")
def gpus(package: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start two workers of two cores that declare one GPU each, "3" and "5"."""
    with standalone(tmp_path_factory.mktemp("gpus"), workers=0) as running:
        for address in ("3", "5"):
            running.add_worker(cores=CORES, memory="1g", gpu=address)
        yield running


@pytest.mark.parametrize("level", ["stage", "application"])
def test_a_task_owns_one_gpu(gpus: Cluster, level: str) -> None:
    asked = {"spark.task.resource.gpu.amount": "1"} if level == "application" else {}
    job = gpus.submit(str(Path(__file__).parent / "gpu_tasks.py"), "6", conf=GPUS | asked)
    out = job.finish()
    backend, device, why, profiled, tasks = json.loads(out.split("placement ", 1)[1].splitlines()[0])
    assert (backend, device, profiled, tasks) == ("tiled", "cuda", level == "stage", 2)
    assert ("stage-level" if level == "stage" else "spark.task.resource.gpu.amount") in why
    rows = [json.loads(line.removeprefix("task ")) for line in out.splitlines() if line.startswith("task ")]
    assert len(rows) == 6
    assert {device for device, *_ in rows} == {"cuda:3", "cuda:5"}
    for address in ("cuda:3", "cuda:5"):
        mine = sorted(times for device, *times in rows if device == address)
        assert all(
            end <= start for (_, end), (start, _) in pairwise(mine)
        )  # no GPU had two tasks at the same time


def test_a_gpu_that_is_asked_for_and_missing_fails_in_one_line(
    gpus: Cluster, fresh: Warehouse, tmp_path: Path
) -> None:
    config = tmp_path / "settings.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["night"] |= {"device": "cuda", "backend": "auto"}
    config.write_text(yaml.safe_dump(settings))
    night = ("--config", str(config), "--ds", shop.NIGHT, "--run-key", "gpu", "--steps")
    build, score = ("build_candidate_bank", "build_link_states"), ("score_candidates",)
    script = str(ROOT / "jobs" / "run_steps.py")

    def refuse(steps: tuple[str, ...], conf: dict[str, str], message: str) -> None:
        job = gpus.submit(script, *night, *steps, conf=conf)
        out = job.finish(3)
        last = out.splitlines()[-1]
        assert last.startswith("error: ")
        assert message in last
        assert "Traceback" not in out

    if torch.cuda.is_available():
        gpus.submit(script, *night, *build).finish()
    else:  # the GPU is declared but missing: the task that gets it reports that
        refuse((*build, *score), GPUS, "the driver chose device 'cuda:")
    refuse(score, {}, "the executors declare no GPU: set spark.executor.resource.gpu.amount")
    shared = GPUS | {"spark.task.resource.gpu.amount": "0.5"}
    refuse(score, shared, "is 0.5, so tasks would share a GPU")
