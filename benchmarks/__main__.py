"""`make bench`: all benchmarks, one table."""

from benchmarks import bookkeeping, depth_reading, frames, pixels, scale, throughput, tick
from benchmarks.table import show

if __name__ == "__main__":
    show(
        [
            *throughput.measure(),
            *pixels.measure(),
            *bookkeeping.measure(),
            *tick.measure(),
            *scale.measure(),
            *depth_reading.measure(),
            *frames.measure(),
        ]
    )
