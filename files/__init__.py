"""Files: safe writing, the run manifest, and reading what other people wrote."""
