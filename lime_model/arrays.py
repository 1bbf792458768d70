"""Names for the array types that the package's signatures use; this file alone defines them.

`Floats` and `F64` are the same type. `F64` says that the bits are a part of the contract (canonical scores),
`Floats` that any float64 will do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Items = NDArray[Any]  # item ids of any type
