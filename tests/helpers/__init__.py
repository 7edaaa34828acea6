"""What tests share: data, tiny models, runs of scripts."""
