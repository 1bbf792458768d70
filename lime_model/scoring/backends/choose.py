"""The backend and device that score: settings choose them, and the manifest says why."""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch

from lime_model.errors import LimeError
from lime_model.scoring import BackendName, native
from lime_model.scoring.backend import Backend
from lime_model.scoring.backends.native import First, NativeBackend
from lime_model.scoring.backends.reference import ReferenceBackend
from lime_model.scoring.backends.tiled import TiledBackend

NAMES: tuple[BackendName, ...] = get_args(BackendName)
PASSES: dict[str, First] = {"native": "int8", "native-bf16": "bf16", "native-fp32": "fp32"}


class BackendError(LimeError, RuntimeError):
    """A backend or device that was asked for is not available."""


class Choice(NamedTuple):
    """The backend and device that were chosen, and the reason in words."""

    backend: str
    device: str
    why: str


def choose_backend(backend: str, device: str, *, cuda: bool) -> Choice:
    """Resolve `auto`: a GPU if there is one, else the compiled kernel, else torch on the CPU.

    Args:
        backend: one of `NAMES`.
        device: auto, cpu or cuda.
        cuda: whether the machines that will score have a GPU.

    Raises:
        BackendError: the name is unknown, or the device or kernel is missing.
    """
    if backend not in NAMES:
        raise BackendError(f"unknown backend {backend!r}; use one of {', '.join(NAMES)}")
    if device not in ("auto", "cpu", "cuda"):
        raise BackendError(f"unknown device {device!r}; use auto, cpu or cuda")
    reason = native.why_not(_isa(backend))
    if device == "cuda" and not cuda:
        raise BackendError(
            "device 'cuda' was asked for and there is no CUDA device; "
            "use device: auto or cpu, or schedule the job where there is one"
        )
    if device == "cuda" and backend not in ("auto", "tiled", "triton"):
        raise BackendError(f"the {backend} backend runs on the CPU only; use backend: tiled or triton")
    if backend == "triton" and (device == "cpu" or not cuda):
        where = "the CPU was asked for" if device == "cpu" else "there is no CUDA device"
        raise BackendError(f"backend 'triton' was asked for and {where}; it needs a GPU: use backend: auto")
    if backend.startswith("native") and reason:
        raise BackendError(f"backend {backend!r} was asked for: {reason}; or use backend: auto")
    if backend == "auto":
        return _choose(device, cuda=cuda, reason=reason)
    if backend not in ("tiled", "triton") or device == "cpu":
        return Choice(backend, "cpu", "asked for" if device == "cpu" else f"{backend} runs on the CPU")
    why = "asked for" if device == "cuda" else f"auto: there is {'a' if cuda else 'no'} CUDA device"
    return Choice(backend, "cuda" if cuda else "cpu", why)


def _choose(device: str, *, cuda: bool, reason: str) -> Choice:
    if device == "cuda" or (device == "auto" and cuda):
        return Choice("tiled", "cuda", "auto: there is a CUDA device")
    where = "the CPU was asked for" if device == "cpu" else "there is no CUDA device"
    if reason:
        return Choice("tiled", "cpu", f"auto: {where}; no native kernel: {reason}")
    return Choice("native", "cpu", f"auto: {where}; the native kernel runs here ({native.best_isa()})")


def _isa(backend: str) -> str:
    """Return the instruction set that a native backend needs; only tests emulate bf16 with another set."""
    return "avx512-bf16" if backend == "native-bf16" else native.BASE


def make_backend(name: str, device: str) -> Backend:
    """Make the backend of a resolved choice.

    Raises:
        BackendError: this host can't run what the driver chose.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendError(f"the driver chose device {device!r} and torch sees none on this host")
    if name == "reference":
        return ReferenceBackend()
    if name == "triton":
        # Imported here because it loads Triton, which only this backend needs.
        from lime_model.scoring.backends.fused import TritonBackend

        return TritonBackend(device)
    if name.startswith("native"):
        if reason := native.why_not(_isa(name)):
            raise BackendError(f"the driver chose backend {name!r} and this host can't run it: {reason}")
        return NativeBackend(PASSES[name])
    # A GPU needs far larger tiles than fit a core's cache.
    return (
        TiledBackend()
        if device == "cpu"
        else TiledBackend(device=device, user_block=64, tile=8192, stripe=65536)
    )
