"""The wire between an editor and the in-betweening server. PROTOCOL.md describes it; `client.Client` speaks it.

Imports neither torch, bpy nor numpy, so that it can live inside Blender.
"""
