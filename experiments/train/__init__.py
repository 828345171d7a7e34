"""Train on corpora of emotions and sentiment, and what the loop costs beside its steps."""
