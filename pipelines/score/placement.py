"""GPUs by Spark's own scheduling: a scoring task owns one, and no two tasks share one.

| what the cluster offers | what scoring asks for |
|---|---|
| one process (`local[*]`) | nothing: all tasks are of this host, torch says what it has |
| executors that declare no GPU | the CPU; `device: cuda` is refused |
| GPUs, and `spark.task.resource.gpu.amount` of 1 or more | nothing more: every task has its GPU |
| GPUs that tasks do not ask for | a stage-level profile: scoring tasks alone take a GPU each |

Executors declare theirs by `spark.executor.resource.gpu.amount` and a discovery script (docs/cluster.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pyspark import SparkContext, TaskContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests

from lime_model.scoring.backends.choose import BackendError, Choice, choose_backend

OFFERED, ASKED = "spark.executor.resource.gpu.amount", "spark.task.resource.gpu.amount"


class Placement(NamedTuple):
    """What scores and where; `profile` is for `mapInArrow`, None: the application's own."""

    choice: Choice
    profile: ResourceProfile | None
    tasks: int  # that score at the same time


def place_scoring(context: SparkContext, backend: str, device: str) -> Placement:
    """Resolve `auto` by what the executors have, not by what the driver's host has.

    Raises:
        BackendError: a GPU was asked for and no executor declares one, or tasks would share one.
    """
    if (context.master or "").startswith("local"):
        choice = choose_backend(backend, device, cuda=torch.cuda.is_available())
        return Placement(choice, None, context.defaultParallelism)
    offered, asked = (float(context.getConf().get(key, "0")) for key in (OFFERED, ASKED))
    if device == "cuda" and offered < 1:
        raise BackendError(
            f"device 'cuda' was asked for and the executors declare no GPU: set {OFFERED} and "
            "spark.executor.resource.gpu.discoveryScript (docs/cluster.md), or use device: auto or cpu"
        )
    choice = choose_backend(backend, device, cuda=offered >= 1)
    if choice.device == "cpu":
        return Placement(choice, None, count_slots(context))
    if 0 < asked < 1:
        raise BackendError(
            f"{ASKED} is {asked:g}, so tasks would share a GPU; leave it out, scoring asks for one a task"
        )
    if asked:
        why = f"{choice.why}; one for each task of the application ({ASKED})"
        return Placement(choice._replace(why=why), None, count_gpus(context))
    why = f"{choice.why}; one for each scoring task, by a stage-level profile"
    return Placement(choice._replace(why=why), gpu_profile(), count_gpus(context))


def gpu_profile() -> ResourceProfile:
    """One core and one GPU a task, on the executors that are there."""
    return ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", 1)).build


def count_slots(context: SparkContext) -> int:
    """Tasks that the executors which are up run at the same time, at least one.

    `defaultParallelism` says 2 for a single core.
    """
    scala = context._jsc.sc()
    return max(1, int(scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())))


def count_gpus(context: SparkContext) -> int:
    """GPUs of the executors that are up, at least one."""
    executors = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1  # the driver is listed too
    return max(1, executors) * int(float(context.getConf().get(OFFERED, "1")))


def own_device(device: str) -> str:
    """Inside a task: the chosen device, by address where Spark has given the task a GPU."""
    task = TaskContext.get()
    given = task.resources().get("gpu") if task and device == "cuda" else None
    return f"cuda:{given.addresses[0]}" if given else device
