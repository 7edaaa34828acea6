"""What `tools/make_paraphrases.py` asks, whom, and which answers it accepts."""
