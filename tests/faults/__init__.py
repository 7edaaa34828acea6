"""Input that fails, and how."""
