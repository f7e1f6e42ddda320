"""What every kernel begins with: which thread of how many it is (compile.py)."""

from __future__ import annotations

ENTRY = "convolve_kernel_entry"

HEADER = 4
"""How many arguments stand before a kernel's own."""

PREAMBLE = """
    if arguments[0] != 0:
        thread, threads = call_int(arguments[0]), call_int(arguments[1])
    else:
        thread, threads = arguments[2], arguments[3]
"""
