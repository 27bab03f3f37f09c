"""Readers of data sets: where images, labels and masks lie, and whether they are what a benchmark asks for."""
