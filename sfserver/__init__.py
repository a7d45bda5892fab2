"""In-betweens for video editors: two keyframes and a prompt go in, the frames between them stream out."""

__version__ = "0.1.0"

import os

BORN_OF = os.getppid()
"""Who started this program. Read before anything else, since a server ends with its owner, who may be gone by then."""
