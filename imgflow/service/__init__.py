"""Ways to run imgflow: `imgflow up`, a single pass, a cluster's workers, containers.

The commands are in `imgflow.cli`, and what runs execute is in `imgflow.orchestration`.
"""
