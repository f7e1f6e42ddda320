"""What a network is, before it runs: traced once under fake tensors into frozen records, then pure functions of records.

trace.py      a model and its input -> Trace (steps with edges, parameters, lifetimes)
rules/        one small rule per operator: multiplications, additions, which inputs an output index reads
maps.py reach.py fields.py     receptive fields as exact sets
report.py     Trace -> Report: rows, totals, lints; columns.py says how each cell is written
memory.py lints.py teach.py inverse.py profiles.py     one question each
"""
