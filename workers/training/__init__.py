"""How the encoders get their weights: offline, with torch at hand. Nothing imports this at run time."""
