"""From released files to released outputs, beside what the published code made of them."""
