"""How the encoders get their weights: offline, with torch at hand. Nothing at run time imports this package."""
