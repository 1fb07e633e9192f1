"""The report page: tables, charts and pictures, from values alone."""
