from __future__ import annotations

import pytest

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")
