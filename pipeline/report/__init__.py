"""The report page: tables, charts, template."""
