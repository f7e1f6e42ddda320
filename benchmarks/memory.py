"""What `convolve.tune_memory` changes: torch's layers with large maps, in processes with and without it, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.record import spread, write

LAYERS = {
    "4x3x224x224 k64 3x3 s1 p1": "torch.conv2d(torch.ones(4, 3, 224, 224), torch.ones(64, 3, 3, 3), None, 1, 1)",
    "8x128x28x28 k64 4x4 s2 p1 transposed": (
        "torch.conv_transpose2d(torch.ones(8, 128, 28, 28), torch.ones(128, 64, 4, 4), None, 2, 1)"
    ),
    "32x64x112x112 relu": "torch.relu(torch.ones(1).expand(32, 64, 112, 112))",
}
PROCESSES, CALLS = 5, 12
CODE = """
import sys, statistics, time, torch, convolve
assert sys.argv[1] == "default" or convolve.tune_memory()
def run(): return {expression}
run(); run()
seconds = []
for _ in range({calls}):
    started = time.perf_counter(); run(); seconds.append(time.perf_counter() - started)
print(statistics.median(seconds))
"""


def seconds(expression: str, mode: str) -> float:
    """The median of CALLS calls in a new process."""
    code = CODE.format(expression=expression, calls=CALLS)
    done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    figures = {}
    for name, expression in LAYERS.items():
        pairs = [(seconds(expression, "default"), seconds(expression, "tuned")) for _ in range(PROCESSES)]
        figures[name] = {
            "default_s": spread([default for default, _ in pairs]),
            "tuned_s": spread([tuned for _, tuned in pairs]),
            "ratio": statistics.median(default / tuned for default, tuned in pairs),
        }
    write("memory", figures)
