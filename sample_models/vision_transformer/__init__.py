"""A tiny vision transformer: attention and layer normalization on images."""
