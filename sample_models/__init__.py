"""Sample models: one folder each, the same files in each: ``edgekit build sample_models/NAME/recipe.yaml``."""
