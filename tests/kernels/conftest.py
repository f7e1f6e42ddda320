from __future__ import annotations

import pytest

pytest.importorskip("numba", reason="the kernels are compiled by Numba, which is not installed")
