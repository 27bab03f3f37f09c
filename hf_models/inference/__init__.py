"""From a photo and the name of a model to an answer: reading images, loading models, classifying."""
