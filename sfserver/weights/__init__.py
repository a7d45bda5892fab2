"""Which files a model needs, where they are, which dialect they speak; safe loading only.

What a converted model folder says of itself can be asked without torch: that is all this package exports here.

    manifest   model.json: what a folder holds, and whether it is still that
    files      headers, sizes and hashes of files, read without torch
    dialects   the names tensors go by in other people's files
    identify   what a file seems to be, and the sizes of the network in it
    sources    published files, opened so that nothing in them can run
    lora       low-rank additions, merged
    convert    published files -> a model folder
    loading    a model folder -> networks on a device
"""

from .files import WeightsError
from .manifest import Component, Manifest, describe_folder, problem

__all__ = ["Component", "Manifest", "WeightsError", "describe_folder", "problem"]
