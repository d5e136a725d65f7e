"""imgflow: every image landing in a bucket becomes materialised Dagster assets."""
