"""The compiled kernels that tests of the native backend need."""

from __future__ import annotations

import pytest

from lime_model.scoring.native import ISAS, QUADS, compile_for
from tests.host import HAS_NATIVE


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """Compile for every instruction set, also for those that this processor does not run."""
    if HAS_NATIVE:
        assert {isa: compile_for(isa) for isa in (*ISAS, *QUADS)} == dict.fromkeys((*ISAS, *QUADS), "")
