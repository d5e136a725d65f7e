"""What is done with images, without Dagster: used by runs and by the API alike."""
