"""Training on corpora of emotions and sentiment, and the loop's overhead."""
