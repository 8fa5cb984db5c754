"""A small real server of the Llama-like twin, and what its steps and requests are held against."""
