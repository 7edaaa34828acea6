"""What several rooms share: heat maps, position codes, checkpoint loading."""
