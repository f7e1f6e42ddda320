"""Convolution kernels in Python: SIMD through Numba, serial functions of addresses, kept as machine code. No torch here."""
