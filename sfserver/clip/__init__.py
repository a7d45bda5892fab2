"""One clip: what was asked for, the plan for it, where its frames come from, and how they become files."""
