"""Files of measurements: what a record says, and how a file is read and checked."""
