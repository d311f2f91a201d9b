"""Where in the picture a latent looks: gradients followed back to the pixels, checked by covering places."""
