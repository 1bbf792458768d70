"""Place scoring on CPUs or GPUs; Spark's scheduler gives each scoring task a GPU of its own.

| what the cluster offers | what scoring asks for |
|---|---|
| one process (`local[*]`) | nothing: all tasks run on this host, where torch can look for a GPU |
| executors that declare no GPU | the CPU; `device: cuda` is refused |
| GPUs, and `spark.task.resource.gpu.amount` of 1 or more | nothing more: every task has its GPU |
| GPUs that tasks do not ask for | a stage-level profile: only scoring tasks take a GPU each |

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
    """What scores, and where; `profile` is for `mapInArrow`, and None means the application's own."""

    choice: Choice
    profile: ResourceProfile | None
    tasks: int  # the number of tasks that score at the same time


def place_scoring(context: SparkContext, backend: str, device: str) -> Placement:
    """Resolve `auto` by what the executors have, not by what the driver's host has.

    Args:
        context: the application, with its executors.
        backend: `night.backend` of the settings.
        device: `night.device` of the settings: `auto`, `cpu` or `cuda`.

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
    """Return a profile of one core and one GPU for each task, on the application's executors."""
    return ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", 1)).build


def count_slots(context: SparkContext) -> int:
    """Count the tasks that the running executors can run at the same time; return at least 1.

    Spark's `defaultParallelism` is 2 even for a single core.
    """
    scala = context._jsc.sc()
    return max(1, int(scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile())))


def count_gpus(context: SparkContext) -> int:
    """Count the GPUs of the running executors; return at least the GPUs of one executor."""
    executors = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1  # the driver is listed too
    return max(1, executors) * int(float(context.getConf().get(OFFERED, "1")))


def own_device(device: str) -> str:
    """Return the device of this task: the GPU that Spark gave it, or else the chosen device."""
    task = TaskContext.get()
    given = task.resources().get("gpu") if task and device == "cuda" else None
    return f"cuda:{given.addresses[0]}" if given else device
