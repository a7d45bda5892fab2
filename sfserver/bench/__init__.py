"""Measurements as ratios: both sides in one run on one machine, so that the figures mean something on any other."""
