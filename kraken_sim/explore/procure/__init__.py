"""Which machines to buy."""
