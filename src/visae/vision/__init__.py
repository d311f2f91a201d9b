"""A frozen timm vision transformer: weights, layers, resuming from a layer."""
