"""Scoring: folds a model into factors, filters candidates and publishes exact lists.

In: the factors of users (`queries.Query`) and of candidates in packed shards (`cells.Cells`,
`bank.PackedBank`). Out: for every user and policy the exact K best candidates (`topk.Engine`), the same bits
from every backend.
"""

from typing import Literal

# The name lives here because nothing here imports torch: settings name a backend long before one is loaded.
BackendName = Literal["auto", "reference", "tiled", "native", "native-bf16", "native-fp32", "triton"]
