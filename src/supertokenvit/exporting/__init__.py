"""A trained model as one graph that other engines run: made, checked against the model, and described beside it."""
