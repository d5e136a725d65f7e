"""What every route shares: problems, the envelope, bodies, serving, measures."""
