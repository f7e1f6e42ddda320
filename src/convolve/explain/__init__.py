"""What a network makes of one image, and the steps of an animation: computed here, drawn elsewhere."""
