"""Ways to run imgflow: `imgflow up`, a single pass, a cluster's workers, containers."""
