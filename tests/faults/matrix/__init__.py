"""The fault matrix: every job, disturbed in every way, goes on to what it gives undisturbed."""
