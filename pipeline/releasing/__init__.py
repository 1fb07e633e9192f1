"""The release folder: filled, moved into place once, verified, signed; rebuilt, compared, sent."""
