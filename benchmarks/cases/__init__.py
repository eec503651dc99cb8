"""What is measured: the inputs of each case, its contenders, and the reference that all of them must agree with."""
