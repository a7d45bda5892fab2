"""Sockets and processes. Torch is imported in worker.py alone."""
