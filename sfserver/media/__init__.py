"""Pictures and clips in and out of the command line: read, fit to size, PNG sequence, MP4, contact sheet.

What a user or the disk can get wrong is a MediaError: one sentence with the remedy. Outputs appear by rename, so a file
that can be seen is a whole one.
"""

from .clip import ClipWriter, h264_encoder
from .exr import is_exr
from .files import MediaError
from .fit import FIT_RULES, FitRule, clip_size, fit, fit_all
from .outputs import ClipShape, Outputs, check_name
from .read import Loaded, read_picture
from .sequence import SequenceWriter
from .sheet import ContactSheet

__all__ = [
    "FIT_RULES",
    "ClipShape",
    "ClipWriter",
    "ContactSheet",
    "FitRule",
    "Loaded",
    "MediaError",
    "Outputs",
    "SequenceWriter",
    "check_name",
    "clip_size",
    "fit",
    "fit_all",
    "h264_encoder",
    "is_exr",
    "read_picture",
]
