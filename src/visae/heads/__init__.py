"""Task heads on frozen final tokens: a linear probe and a segmentation head."""
