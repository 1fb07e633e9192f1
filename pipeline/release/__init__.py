"""The release folder: judged, built, named once, verified, signed."""
