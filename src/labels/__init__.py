"""Label files, label policy, patient split, audit and label statistics."""
