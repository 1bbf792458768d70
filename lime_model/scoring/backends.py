"""Which backend and device score: chosen by settings, explained in the manifest."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lime_model.scoring.reference import keep_all
from lime_model.scoring.tiled import Tiled
from lime_model.scoring.topk import Filter


class Choice(NamedTuple):
    """What was chosen, and why."""

    backend: str
    device: str
    why: str


def choose_backend(backend: str, device: str) -> Choice:
    """Resolve `auto`.

    Raises:
        RuntimeError: CUDA was asked for and is not there, or by the reference backend.
        ValueError: an unknown name.
    """
    if backend not in ("auto", "tiled", "reference"):
        raise ValueError(f"unknown backend {backend!r}; use auto, tiled or reference")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; use auto, cpu or cuda")
    chosen = "tiled" if backend == "auto" else backend
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise RuntimeError(
            "device 'cuda' was asked for and torch sees no CUDA device on this host; "
            "use device: auto or cpu, or schedule the job where there is one"
        )
    if device == "cuda" and chosen == "reference":
        raise RuntimeError("the reference backend runs on the CPU only; use backend: tiled")
    if device == "cpu" or chosen == "reference":
        return Choice(
            chosen, "cpu", "asked for" if device == "cpu" else "the reference backend runs on the CPU"
        )
    why = "asked for" if device == "cuda" else f"auto: torch sees {'a' if cuda else 'no'} CUDA device"
    return Choice(chosen, "cuda" if cuda else "cpu", why)


def make_filter(backend: str, device: str) -> Filter:
    """The filter of a resolved choice."""
    if backend == "reference":
        return keep_all
    # A GPU wants far larger tiles than a core's cache does.
    return Tiled() if device == "cpu" else Tiled(device=device, user_block=64, tile=8192, stripe=65536)
