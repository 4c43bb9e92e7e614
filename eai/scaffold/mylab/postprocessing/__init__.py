"""Statistical post-processing: from a forecast and what is known of the station to the temperature observed there."""
