"""Commands of `sfserver` that have a page of their own, what is typed to them, and what a terminal shows of them."""
