"""From released files to released outputs, per system, beside what the published code made of them."""
