"""The colours of ImageNet, of images in [0, 1]: its networks learnt from ``(x - MEAN) / STD``."""

MEAN = (0.485, 0.456, 0.406)  # red, green, blue
STD = (0.229, 0.224, 0.225)
