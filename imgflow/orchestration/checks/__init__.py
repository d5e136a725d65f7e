"""Asset checks: what is examined, how it is judged, and where the result is reported."""
