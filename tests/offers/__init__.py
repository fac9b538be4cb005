"""Offers of real WHIP clients, and the program that recorded them."""
