"""Asset checks: what is examined, what counts as a defect, and how the result is reported."""
