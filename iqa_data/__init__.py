"""Info tables, splits, transforms, decoded images, samplers."""
