"""Time of operators and models beside their peers, in the same run."""
