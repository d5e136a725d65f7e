"""HTTP parts that all routes share: problems, request and answer bodies, middleware, metrics.

Nothing here knows a particular route; these are in `imgflow.api.routes`.
"""
