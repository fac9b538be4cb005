"""How fast the line is and how much it bears, measured on whatever machine this is."""
