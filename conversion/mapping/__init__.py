"""What a family's or a head's part of the conversion is written with."""
