"""Convolution kernels in Python: a small language that LLVM compiles, serial functions of addresses, kept as machine code; no torch."""
