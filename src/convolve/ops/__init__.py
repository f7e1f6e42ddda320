"""Operators: the convolutions and poolings, their derivative, and the algorithms that compute them."""
