"""S3 as a source: its hosts, clients, errors, queues and notifications."""
