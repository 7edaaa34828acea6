"""Files: safe writing, and reading what other people wrote."""
