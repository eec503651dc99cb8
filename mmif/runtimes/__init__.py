"""What runs a whole model: which runtimes there are, which serve here, and the code that drives them."""
