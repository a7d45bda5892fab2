"""A worker that never gets as far as working."""

import sys

sys.exit("libcuda.so.1 is missing")
