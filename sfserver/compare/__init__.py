"""`sfserver compare`: two pictures through all combinations of engines, strategies and seeds, on a page to judge by."""
