"""Receptive fields as sets against a float64 brute-force oracle, on random graphs of every operator kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import convolve
from analysis.programs import CHANNELS, Program, programs, seen_by
from convolve.analysis.fields import pixels
from convolve.analysis.report import build
from convolve.analysis.trace import Input, run

NETWORKS = 500


@settings(
    max_examples=NETWORKS, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@given(programs())
def test_every_output_sees_exactly_the_pixels_that_change_it(drawn: tuple[Program, tuple[int, int]]) -> None:
    model, size = drawn
    model.library = convolve
    report = build(run(model.eval(), [Input((1, CHANNELS, *size))]))
    model.library = F  # the judge is torch
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = model(torch.zeros(1, CHANNELS, *size))
    assert report.outputs == (tuple(output.shape),)
    assert report.totals.parameters == sum(p.numel() for p in model.parameters())
    assert 2 * report.totals.macs == counter.get_total_flops()
    assert not report.totals.uncounted

    oracle = seen_by(model, size)
    last = report.trace.outputs[0]
    assert last.step is not None
    field = report.seen[last.step][last.output]
    for i in range(output.shape[2]):
        for j in range(output.shape[3]):
            truth = {(int(a), int(b)) for a, b in oracle[:, :, i, j].nonzero()}
            ours = pixels(field, (0, 0, i, j))
            assert ours == truth if field.exact else ours >= truth, (i, j, sorted(ours ^ truth), model.instructions)
