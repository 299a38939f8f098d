"""What answers each job, on a loaded model."""
