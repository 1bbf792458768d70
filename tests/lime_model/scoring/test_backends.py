"""Backends: the error bound of the filters, canonical scores in C++, and how a backend is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_model.scoring import native
from lime_model.scoring.backends.choose import BackendError, choose_backend, make_backend
from lime_model.scoring.backends.native import NativeBackend
from lime_model.scoring.backends.tiled import error_bound
from lime_model.scoring.canonical import round_scores
from lime_model.scoring.cells import Cells, Stats
from lime_model.scoring.native import compile_for, why_not
from tests.host import HAS_NATIVE, WHY
from tests.lime_model.scoring.cases import make_case

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 1e3]), outlier=st.booleans())
def test_the_error_bound_holds(seed: int, scale: float, outlier: bool) -> None:
    weights, queries, bank = make_case(seed, 3, 50, 5, 6, 4, 1000, scale)
    if outlier:  # one huge column makes cancellation worst
        queries[0].factors.g[:, 0] *= 1e4
        bank.b[:, 0] *= -1e4
    bound = error_bound(weights, queries, Stats.of(bank))
    for query, epsilon in zip(queries, bound, strict=True):
        a, b, d, beta = bank
        g, e = query.factors
        hidden = np.maximum(a @ g + b, 0)  # fp32 throughout, in BLAS order
        approx = hidden @ weights.out.astype(np.float32) + (d @ e + beta)
        published = round_scores(weights.base(query.factors, bank), bank.beta)
        assert np.abs(approx.astype(np.float64) - published).max() <= epsilon


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
def test_a_processor_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that was asked for is refused by name on driver and workers; `auto` says why torch scores."""
    monkeypatch.setattr(native, "processor_level", lambda: 0)
    native.why_not.cache_clear()
    try:
        with pytest.raises(BackendError, match=r"'native' was asked for: this processor has no avx2"):
            choose_backend("native", "cpu", cuda=torch.cuda.is_available())
        with pytest.raises(
            BackendError, match="'native-bf16' was asked for: this processor has no avx512-bf16"
        ):
            choose_backend("native-bf16", "cpu", cuda=torch.cuda.is_available())
        with pytest.raises(BackendError, match="this host can't run it: this processor has no avx2"):
            make_backend("native", "cpu")
        choice = choose_backend("auto", "cpu", cuda=torch.cuda.is_available())
        assert choice.backend == "tiled"
        assert "no native kernel: this processor has no avx2" in choice.why
    finally:
        native.why_not.cache_clear()


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
def test_a_damaged_kernel_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_NATIVE", str(tmp_path))
    native._folder.cache_clear()
    try:
        assert compile_for("avx2") == ""
        assert why_not("avx2") == ""
        library = native.kernel_path("avx2")
        half = library.read_bytes()[:3000]
        library.unlink()  # this process has mapped the file
        library.write_bytes(half)
        native.why_not.cache_clear()
        assert "is damaged; run" in why_not("avx2")
        assert choose_backend("auto", "cpu", cuda=torch.cuda.is_available()).backend == "tiled"
        assert compile_for("avx2") == ""  # compiles it again
        assert why_not("avx2") == ""
    finally:
        native._folder.cache_clear()
        for answer in (native.why_not, native.best_isa, native.processor_level):
            answer.cache_clear()


def test_a_missing_device_or_kernel_fails_and_auto_says_why() -> None:
    choice = choose_backend("auto", "cpu", cuda=torch.cuda.is_available())
    assert choice.backend == ("native" if HAS_NATIVE else "tiled")
    assert "CPU was asked for" in choice.why
    make_backend(choice.backend, "cpu")
    if not torch.cuda.is_available():
        assert "no CUDA device" in choose_backend("auto", "auto", cuda=torch.cuda.is_available()).why
        with pytest.raises(RuntimeError, match="use device: auto or cpu"):
            choose_backend("tiled", "cuda", cuda=torch.cuda.is_available())
    with pytest.raises(BackendError, match="use one of auto, reference, tiled, native, native-bf16"):
        choose_backend("fast", "auto", cuda=torch.cuda.is_available())


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_canonical_scores_in_cpp_are_those_of_numpy_to_the_bit(seed: int, scale: float) -> None:
    weights, queries, bank = make_case(seed, 2, 70, 9, 13, 5, 1000, scale)
    cells, rows = Cells.pack(bank), np.random.default_rng(seed).permutation(70).astype(np.int64)
    for query in queries:
        ours = NativeBackend().base(weights, query, cells, rows)
        assert ours.tobytes() == weights.base(query.factors, bank.take(rows)).tobytes()
