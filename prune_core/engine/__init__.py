"""The engine: jobs in, events and results out; one worker per device owns the models."""
