"""Which files a model needs, where they are, which dialect they speak; safe loading only."""
