"""How the encoders get their weights and their figures: offline. Nothing at run time imports this package."""
