"""imgflow turns every image that lands in a bucket into materialised Dagster assets.

Nothing is imported here; `imgflow.assembly` builds the Dagster definitions.
"""
