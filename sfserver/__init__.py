"""In-betweens for video editors: two keyframes and a prompt go in, the frames between them stream out."""

__version__ = "0.1.0"
