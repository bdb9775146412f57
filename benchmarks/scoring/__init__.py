"""What is right in predictions: matched with the gold, counted, with intervals; and the most that a format allows."""
