"""A program: the ops each rank launches, in host order, on streams that events order."""
