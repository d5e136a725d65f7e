"""`make bench`: all benchmarks, one table."""

from benchmarks import api_load, bookkeeping, depth_reading, frames, scale, throughput, tick
from benchmarks.table import show

if __name__ == "__main__":
    show(
        [
            *throughput.measure(),
            *bookkeeping.measure(),
            *tick.measure(),
            *scale.measure(),
            *depth_reading.measure(),
            *frames.measure(),
            *api_load.measure(),
        ]
    )
