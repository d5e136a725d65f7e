"""What route handlers work with: connections, depth reads, signatures, processing on request.

Nothing here registers routes (`imgflow.api.routes`) or builds HTTP answers (`imgflow.api.http`).
"""
