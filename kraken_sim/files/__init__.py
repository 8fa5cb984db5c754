"""The edge of files: strict YAML with lines, problems in our words, and the base of all file models."""
