"""What the converter knows of each backbone: one file a family."""
