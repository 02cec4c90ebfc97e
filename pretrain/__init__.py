"""Learn a backbone from unlabelled images."""
