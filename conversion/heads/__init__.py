"""What the converter knows of the heads on a backbone: one file a head."""
