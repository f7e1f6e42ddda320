"""The weight gradient of a 1x1 layer: one matrix product, summed over the positions of all maps.

    dw[filter, channel]  =  sum over positions of  dy[filter, position] x[channel, position]

Idea. Both operands are copied for a chunk of positions into blocks whose lanes are channels, or filters, and which stay in the caches;
channels first that is a transposition, channels last a copy. From there on it is the sum of Winograd's weight gradient for
a tile of one element, by the same kernel (winograd_gradient.py):

    inputs      V[block of c][position][lane of c]
    gradients   D[block of k][position][lane of k]
    sums        U[panel of k][c][k of the panel] += V^T D

Threads share the positions, whose gradients the caller adds, or the filters. Positions of neighbouring rows and slices that follow each
other in memory count as one row. No more than a chunk is summed one by one, and then the chunks.

Traffic. Each operand is read once, x by every share of the filters; V is read once for each panel, U read and written once for each chunk.
"""

from __future__ import annotations

from convolve.kernels import winograd_gradient
from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import ADDRESSES
from convolve.kernels.winograd import SHARED, unpacked
from convolve.kernels.winograd_gradient import SUMS_ARGUMENTS, VECTORS

# All int64. Strides, sizes and offsets count elements; channels and filters are those of one group.
ARGUMENTS = (
    *ADDRESSES,  # w is the gradient that is computed, y that of the output; bias and table are not used
    "sums",  # the address of a kernel
    "groups", "channels", "filters",
    "x_n", "x_c", "x_d", "x_h", "x_w", "y_n", "y_k", "y_d", "y_h", "y_w",  # from one position to the next
    "count_d", "count_h", "count_w",  # positions of a map
    "positions",  # of all maps
    "chunk",  # positions of a chunk
    "shares", "filter_parts",  # of the positions, of the filters
    "share_size",  # from the gradient of one share of the positions to the next
    "w_k",  # from a filter of w to the next; from one channel to the next it is 1
    "thread_size",
)  # fmt: skip


def thread_size(channels: int, filters: int, chunk: int, lanes: int) -> int:
    """Elements of a thread's scratch for so many channels and filters."""
    blocks, panels = -(-channels // lanes), -(-filters // (VECTORS * lanes))
    # A line longer than need be: powers of two between blocks would put them all into one set of the cache.
    copies = (blocks + VECTORS * panels) * (chunk + 1) * lanes
    return copies + panels * blocks * lanes * VECTORS * lanes + 2 * (HEADER + len(SUMS_ARGUMENTS)) + lanes


def driver_source() -> str:
    told = {name: HEADER + i for i, name in enumerate(SUMS_ARGUMENTS)}
    return f"""
def copied(x, c_step, d_step, h_step, w_step, n_step, count_d, count_h, count_w, first, count, channels, to, block):
    done = 0
    while done < count:
        w, rest = (first + done) % count_w, (first + done) // count_w
        h, rest = rest % count_h, rest // count_h
        d, n = rest % count_d, rest // count_d
        piece = min(count - done, count_w - w)
        here = shift(x, n * n_step + d * d_step + h * h_step + w * w_step)
        for b in range(0, channels, LANES):
            there = shift(to, b // LANES * block + done * LANES)
            gather(shift(here, b * c_step), c_step, w_step, min(LANES, channels - b), piece, there)
        done += piece

def kernel(arguments):
{PREAMBLE}
{unpacked(ARGUMENTS)}
    panel, block = {VECTORS} * LANES, (chunk + 1) * LANES
    blocks, panels = (channels + LANES - 1) // LANES, (filters + panel - 1) // panel
    u_panel = blocks * LANES * panel
    v = shift(pointer(scratch), thread * thread_size)
    d = shift(v, blocks * block)
    u = shift(d, {VECTORS} * ((panels + filter_parts - 1) // filter_parts) * block)
    told = int64_pointer(address(shift(u, (panels + filter_parts - 1) // filter_parts * u_panel)))
    told[{told["v"]}], told[{told["v_block"]}], told[{told["channels"]}] = address(v), block, channels
    tasks = groups * shares * filter_parts
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        share, rest = task % shares, task // shares
        part, g = rest % filter_parts, rest // filter_parts
        first_k = part * panels // filter_parts * panel
        some_k = min((part + 1) * panels // filter_parts * panel, filters) - first_k
        x_here = shift(pointer(x), g * channels * x_c)
        y_here = shift(pointer(y), (g * filters + first_k) * y_k)
        begin, end = share * positions // shares, (share + 1) * positions // shares
        for first in range(begin, end, chunk):
            count = min(chunk, end - first)
            copied(x_here, x_c, x_d, x_h, x_w, x_n, count_d, count_h, count_w, first, count, channels, v, block)
            copied(y_here, y_k, y_d, y_h, y_w, y_n, count_d, count_h, count_w, first, count, some_k, d, block)
            told[{told["count"]}], told[{told["onto"]}] = count, first - begin
            for k in range(0, some_k, panel):
                told[{told["d"]}] = address(shift(d, k // LANES * block))
                # Of a panel's second vector that there is not, the first one again.
                told[{told["d_block"]}] = block if some_k - k > LANES else 0
                told[{told["u"]}] = address(shift(u, k // panel * u_panel))
                call(sums, told)
        w_here = shift(pointer(w), share * share_size + (g * filters + first_k) * w_k)
        for k in range(0, some_k, LANES):
            from_k = shift(u, k // panel * u_panel + k % panel)
            for c in range(0, channels, LANES):
                from_c, some_c = shift(from_k, c * panel), min(LANES, channels - c)
                to = shift(w_here, k * w_k + c)
                if some_c == LANES and some_k - k >= LANES:
                    transpose(from_c, panel, to, w_k)
                else:
                    transpose_first(from_c, panel, some_c, min(LANES, some_k - k), to, w_k, some_c)
"""


def driver(dtype: str) -> Kernel:
    return Kernel(f"pointwise_sums-{dtype}", dtype, driver_source, lambda: SHARED)


def sums(dtype: str) -> Kernel:
    return winograd_gradient.sums(dtype)


def every(dtype: str) -> list[Kernel]:
    return [driver(dtype)]
