"""Photographs, masks, labels and edges: from files and objects to arrays, to the model's tensors, and back to files."""
