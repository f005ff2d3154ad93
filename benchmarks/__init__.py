"""What the project claims about speed, as commands anyone can run. Each prints one JSON line last."""
