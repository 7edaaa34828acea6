"""What tools/prepare_own.py does: read a list of any form, check it, split it by image."""
