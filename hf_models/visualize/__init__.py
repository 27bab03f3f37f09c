"""Pictures of what a model sees: sampling points, receptive fields, features, modulation; the demo page."""
