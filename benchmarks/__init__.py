"""Measurements: each module is one, run as `python -m benchmarks.NAME`; `python -m benchmarks` (make bench) runs the short ones.

A result goes to results/NAME.json with machine, versions, threads, command and spread. Figures in the documentation come from there.
"""
