"""Object stores: listing, reading and writing bytes, and the naming of outputs."""
