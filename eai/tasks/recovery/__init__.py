"""Slide 2.2: from a corrupted image to the clean one, with an autoencoder or a variational one."""
