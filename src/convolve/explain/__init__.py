"""What a network makes of one image: maps, strongest units, receptive fields, filters, attribution; computed here, drawn elsewhere."""
