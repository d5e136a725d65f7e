"""S3 as a source: hosts, clients, errors and presigned URLs, and SQS queues with notifications."""
