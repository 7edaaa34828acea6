"""The parts of `experiments/real_photos.py`."""
