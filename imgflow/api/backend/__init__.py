"""What routes are answered from: connections, reads, signatures, processing at once."""
