"""Training: StyleGAN2 pre-training of the generator, then the multimodal guided encoder."""
