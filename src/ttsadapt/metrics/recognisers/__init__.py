"""Who writes down what is said: models from elsewhere, and those that are trained on the corpus."""
