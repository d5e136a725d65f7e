"""`make bench`: runs all benchmarks, or those named as arguments, and prints one table."""

import sys

from benchmarks import (
    api_load,
    bookkeeping,
    bucket,
    cluster,
    depth_reading,
    frames,
    latency,
    memory,
    peers,
    pixels,
    scale,
    throughput,
    tick,
    ui,
)
from benchmarks.table import show

BENCHMARKS = {
    "throughput": throughput.measure,
    "peers": peers.measure,
    "bucket": bucket.measure,
    "pixels": pixels.measure,
    "bookkeeping": bookkeeping.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "tick": tick.measure,
    "scale": scale.measure,
    "depth_reading": depth_reading.measure,
    "frames": frames.measure,
    "api_load": api_load.measure,
    "ui": ui.measure,
    "cluster": cluster.measure,
}

if __name__ == "__main__":
    names = sys.argv[1:] or BENCHMARKS
    show([measure for name in names for measure in BENCHMARKS[name]()])
