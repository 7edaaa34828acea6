"""Inputs as nobody would write them, for every reader: what it makes of each."""

import os

# Else OpenCV says of every file that it cannot decode it.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
