"""What several rooms share: recorded attentions, heat maps, checkpoint reading."""
