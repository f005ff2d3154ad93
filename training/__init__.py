"""How the bundled text-to-image model was made: the world, the networks, their training and evaluation."""
