"""Models that ship with the package, the world they were trained on, and the recipes that made them."""
