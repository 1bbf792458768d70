"""Scoring: fold a model into factors, filter candidates fast, publish canonical scores."""

from typing import Literal

# Here, where no torch is imported: settings name a backend long before one is loaded.
BackendName = Literal["auto", "reference", "tiled", "native", "native-bf16", "native-fp32", "triton"]
