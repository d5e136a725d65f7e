"""The PostgreSQL catalogue: which image exists in which state, and the depth arrays."""
