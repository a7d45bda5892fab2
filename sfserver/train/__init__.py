"""How the models of this project are trained, and the small world that one of them comes from."""
